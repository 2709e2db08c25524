"""Colours of a view: the definition, and its forms for processors and accelerators. Chosen in `unic.data.augment`."""
