"""Operations worth fusing. Owns one folder per operation; knows nothing of models, caches or sessions.

Each folder has a `reference.py` (plain PyTorch, the definition; none where PyTorch has the operation), faster
implementations beside it that pass the same tests, and in its `__init__.py` the door that picks one by device and
dtype. Callers import the door only.
"""
