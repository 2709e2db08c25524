"""Results for people: tables of scores (tables.py), figures (plots.py, figures.py), one page of all of it (page.py)."""
