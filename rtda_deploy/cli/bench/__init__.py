"""``rtda-deploy bench``: the verb, its page, its advice, and comparing two records."""
