"""Evaluations of every pixel: what segmentation and depth share, and the parts of each."""
