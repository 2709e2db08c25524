"""Results for people: tables of scores (results_table.py), figures (figures.py), one page of all of it (page.py)."""
