"""Images from disk to batches: finding, decoding, cutting views, recolouring, ordering."""
