"""Bulk labels of a fleet's footage: planned as small units, labelled by a loop here or by many workers on Ray."""
