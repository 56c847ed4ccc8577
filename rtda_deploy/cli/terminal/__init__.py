"""The terminal: what may reach it, keys typed into it, signals, tables and progress."""
