"""``rtda-deploy train --list``: the recipes, each with the sentence of its file."""

from __future__ import annotations

__all__ = ["list_recipes"]


def list_recipes(*, json_: bool) -> None:
    """Print a table of names and sentences, or one JSON object of them."""
    from rtda_deploy.cli.terminal.console import note, print_json, print_next, print_table
    from rtda_deploy.cli.train.progress import require_training

    require_training()
    from rtda_training.grids.grid import grid_names
    from rtda_training.plan import recipe_names, recipe_title

    titles = [recipe_title(name) for name in recipe_names()]
    if json_:
        print_json({"recipes": dict(titles), "grids": grid_names()})
        return
    print_table(("recipe", "what it is"), titles)
    note(f"grids   {', '.join(grid_names())}")
    print_next(
        "rtda-deploy train source-only --source DATA   (a first network, of labelled pictures alone)",
        "rtda-deploy train fda-light --source DATA --target DATA   (adapted to footage without labels)",
    )
