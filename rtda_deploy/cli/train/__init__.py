"""``rtda-deploy train``: the verb, the run folder, progress, the page, grids."""
