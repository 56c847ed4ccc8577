"""``rtda-deploy demo``: the verb and its page."""
