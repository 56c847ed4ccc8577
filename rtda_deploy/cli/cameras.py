"""``rtda-deploy cameras``."""

from __future__ import annotations

import typer

__all__ = ["cameras"]


def cameras(json_: bool = typer.Option(False, "--json", help="Print one JSON object.")) -> None:
    """List the cameras of this machine, and whether you may open them.

    Example: rtda-deploy cameras
    """
    from rtda_deploy.cli.console import note, print_json, print_next, print_table
    from rtda_runtime import cameras as found_cameras

    found = found_cameras()
    if json_:
        print_json({"cameras": found})
        return
    if not found:
        note("no /dev/video* here: is a camera plugged in, and passed into the container?")
        print_next("rtda-deploy run --camera test://bars   (a synthetic one)")
        return
    headers = list(found[0])
    print_table(headers, [[camera[header] for header in headers] for camera in found])
    print_next(f"rtda-deploy run --camera {found[0][headers[0]]}")
