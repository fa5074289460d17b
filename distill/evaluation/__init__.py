"""Evaluation of a world against its environment, on held-out episodes only.

`starts` and `generators` produce clips; `quality`, `drift`, `long_rollouts`, `probes` (with `pong`, `doom`,
`inverse_dynamics` and `discriminator`) measure them; `evaluate` decides what is measured; `card` writes the model card.
"""
