"""One file for each evaluation: its settings, and what runs when it is asked for. None imports torch before that."""
