"""``rtda-deploy cameras``."""

from __future__ import annotations

import typer

__all__ = ["cameras"]


def cameras(json_: bool = typer.Option(False, "--json", help="Print one JSON object.")) -> None:
    """List the cameras of this machine, and whether you may open them.

    Example: rtda-deploy cameras
    """
    import dataclasses

    from rtda_deploy.cli.console import print_json, print_next, print_table
    from rtda_runtime import cameras as list_cameras

    found = list_cameras()
    if json_:
        print_json({"cameras": [dataclasses.asdict(camera) for camera in found]})
        return
    if not found:
        print("no /dev/video* here: is a camera plugged in, and passed into the container?")
        print_next("rtda-deploy run --camera test://bars   (a synthetic one)")
        return
    rows = [
        (
            c.path,
            c.name or "-",
            c.stable_path or "-",
            "pictures" if c.main else "metadata",
            "yes" if c.permitted else "no",
        )
        for c in found
    ]
    print_table(("device", "name", "name that stays", "gives", "may open"), rows)
    if not all(camera.permitted for camera in found):
        print_next("sudo usermod -aG video $USER   (then log in again)")
    else:
        print_next(f"rtda-deploy run --camera {found[0].path}")
