"""What every room stands on: errors, configurations, files, randomness, processes. Nothing here knows of the method."""
