"""Labelers: who says what the target's pictures show, since nobody labelled them."""
