"""Styles: how source pictures are made to look like the target's before the network sees them."""
