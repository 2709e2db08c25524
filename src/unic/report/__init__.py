"""Results for people: tables of scores (tables.py) and curves of a run (plots.py)."""
