"""The kinds of data sets, one a file."""
