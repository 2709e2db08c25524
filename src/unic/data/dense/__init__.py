"""Data sets that say what is right for each pixel: how their files are read, and how crops are made of them."""
