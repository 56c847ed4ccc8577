"""Samplers: which source picture comes next."""
