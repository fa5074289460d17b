"""The data, settings, distances and tables of `lightcone bench distill`.

Points (`densities`), images (`digits`), an action-driven process (`process`) and the shipped Pong (`pong_comparison`)
each have a comparison of a teacher with its students; `report` and `measured` write the results into `docs/`.
"""
