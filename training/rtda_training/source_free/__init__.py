"""Adapting a finished network to footage alone: what ``rtda-deploy adapt`` does."""
