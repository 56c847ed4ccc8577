"""The steps of an export: each makes one file, compares it with what it came from, and only then gives it its name."""
