"""Frames kept for the next training: which, where, and how many (docs/collect.md)."""
