"""How linear classifiers are found: held-out images, the search for settings, and two solvers."""
