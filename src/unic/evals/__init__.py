"""Evaluations: one file each, of any encoder. `api.py` says what an evaluation is; copy `knn.py` to add one."""
