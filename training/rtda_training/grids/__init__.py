"""Grids of trainings: their rows, results, tables and the papers' figures."""
