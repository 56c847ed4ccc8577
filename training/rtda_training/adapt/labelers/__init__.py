"""Labelers: pseudo labels for the target's pictures."""
