"""Results for people: tables of scores (results_table.py), figures (matplotlib_charts.py), one page (page.py)."""
