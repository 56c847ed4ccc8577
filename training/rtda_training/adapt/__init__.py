"""Adaptation: the slots of a stage, and one folder of components for each."""
