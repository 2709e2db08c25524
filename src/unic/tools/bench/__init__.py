"""What a training step of a recipe costs on this machine. Start at measure.py."""
