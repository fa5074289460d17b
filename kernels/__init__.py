"""Operations worth fusing. Owns one folder per operation; knows nothing of models, caches or sessions.

Each folder has a `reference.py` (plain PyTorch, the definition; none if PyTorch has the operation), faster
implementations that pass the same tests, and in its `__init__.py` the dispatch function that picks one by device and
dtype. Callers import the dispatch function only.
"""
