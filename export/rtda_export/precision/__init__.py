"""Precisions: how FP16 and INT8 files are made, and what they win."""
