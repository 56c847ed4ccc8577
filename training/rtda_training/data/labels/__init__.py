"""Label files: how they are stored, the tables that turn their values into classes, and what those values say."""
