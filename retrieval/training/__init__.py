"""Fitting and training of what the checkpoints add to their trunks."""
