"""The HTML pages that trainings and grids leave, and the sheets of pictures on them."""
