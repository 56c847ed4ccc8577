"""``rtda-deploy run``: the verb, its screen, its sinks and its advice."""
