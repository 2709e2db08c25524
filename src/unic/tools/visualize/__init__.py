"""Pictures of what encoders see. Start at visualize.py."""
