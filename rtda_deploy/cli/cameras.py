"""``rtda-deploy cameras``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, Optional

import typer

if TYPE_CHECKING:
    from rtda_runtime.sources import CameraInfo

__all__ = ["cameras"]


def cameras(
    stills: Optional[Path] = typer.Option(None, help="Open each camera and save a picture of it into this folder."),
    json_: bool = typer.Option(False, "--json", help="Print one JSON object."),
) -> None:
    """List this machine's cameras: whether you may open each, and a name of it that stays when numbers change.

    Example: rtda-deploy cameras
    """
    import dataclasses

    from rtda_deploy.cli.terminal.console import print_json, print_next, print_table
    from rtda_runtime import cameras as list_cameras
    from rtda_runtime.kinds import examples
    from rtda_runtime.sources.kinds import SOURCE_KINDS

    found = list_cameras()
    shot = {camera.path: _still(camera, stills) for camera in found if camera.main} if stills is not None else {}
    if json_:
        print_json({"cameras": [{**dataclasses.asdict(camera), **shot.get(camera.path, {})} for camera in found]})
        return
    if not found:
        print("no /dev/video* here: is a camera plugged in, and passed into the container?")
        unlisted = [kind for kind in SOURCE_KINDS if kind.reconnects and not kind.cameras]
        print(f"cameras that are not listed are named by their address: {examples(unlisted)}")
        print_next("rtda-deploy run --camera test://bars   (a synthetic one)")
        return
    rows = [
        (
            c.path,
            c.name or "-",
            c.stable_path or "-",
            "pictures" if c.main else "metadata",
            "yes" if c.permitted else f"no: group {c.group or 'video'}",
            *((shot.get(c.path, {}).get("says", "-"),) if stills is not None else ()),
        )
        for c in found
    ]
    titles = ("device", "name", "name that stays", "gives", "may open", *(("still",) if stills is not None else ()))
    print_table(titles, rows)
    closed = [camera for camera in found if not camera.permitted]
    if closed:
        print_next(f"sudo usermod -aG {closed[0].group or 'video'} $USER   (then log in again)")
    else:
        print_next(f"rtda-deploy run --camera {found[0].stable_path or found[0].path}")


def _still(camera: CameraInfo, folder: Path) -> Dict[str, Any]:
    """Save the first picture of a camera; where that fails, the rest of the list matters all the same."""
    from rtda_deploy.errors import RtdaError
    from rtda_runtime import open_source
    from rtda_runtime._opencv import opencv

    path = folder / f"{Path(camera.path).name}.png"
    try:
        with open_source(camera.path) as source:
            frame = source.read(5.0)
            granted = dict(source.granted)
        if frame is None:
            return {"still": None, "says": "gave no picture"}
        folder.mkdir(parents=True, exist_ok=True)
        cv2: Any = opencv("to save pictures")
        path.write_bytes(cv2.imencode(".png", frame.image)[1].tobytes())
    except RtdaError as err:
        return {"still": None, "says": err.message}
    except OSError as err:
        return {"still": None, "says": f"{path}: {err.strerror}"}
    return {"still": str(path), "granted": granted, "says": f"{path} {' '.join(granted.values())}"}
