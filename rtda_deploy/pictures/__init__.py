"""Picture files: what a file is, whether it is whole, its pixels."""
