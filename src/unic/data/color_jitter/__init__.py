"""Colours of a view: the definition, and its forms for CPUs and GPUs. Chosen in `unic.data.photometric`."""
