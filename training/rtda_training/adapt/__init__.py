"""Adaptation: what a step may use (context), the styles of the source, the objectives, the adversary, batch norms."""
