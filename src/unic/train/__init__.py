"""Training: the recipe, the loop that carries it out, and what it writes."""
