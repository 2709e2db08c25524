"""Kinds of URI, one file each. None imports torch at module level: what loads an encoder is imported when one is."""
