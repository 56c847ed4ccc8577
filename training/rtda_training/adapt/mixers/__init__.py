"""Mixers: pictures made of both domains."""
