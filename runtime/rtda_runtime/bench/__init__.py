"""Benchmarks: what is measured, how samples are taken, how two records are compared."""
