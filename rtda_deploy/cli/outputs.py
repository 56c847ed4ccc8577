"""What each verb writes, held against what it reads; asked before work starts."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Dict, Iterable, List, Optional, Sequence, Tuple

from rtda_deploy.errors import ConfigError
from rtda_deploy.masking import mask_password
from rtda_deploy.overwriting import entries, refuse_overwriting, same_place

__all__ = [
    "AskedSink",
    "check_bench",
    "check_cvat",
    "check_eval",
    "check_frames",
    "check_label",
    "check_run",
    "check_translate",
    "check_verify",
    "written_by",
]


AskedSink = Tuple[str, str]  # an option of run without its dashes, and the address typed after it


def written_by(sinks: Iterable[AskedSink]) -> List[Tuple[str, Path]]:
    """The files and folders that the sinks of ``run`` will write, each with the option that names it.

    Raises:
        ConfigError: If an address is of no known kind.
    """
    from rtda_runtime.sinks.kinds import written

    found = [(option, address, written(option, address)) for option, address in sinks]
    return [
        (f"--{option}" if address == str(path) else f"--{option} {address}", path)
        for option, address, path in found
        if path is not None
    ]


def check_run(sinks: Sequence[AskedSink], camera: str, models: Iterable[Optional[Path]], force: bool) -> None:
    """``run``: films, recordings and the folder of masks.

    Raises:
        ConfigError: If two of them are one, if one is the source or a model, if the folder holds pictures that are no
            masks, or if a sink was asked for twice.
    """
    outputs = written_by(sinks)
    _refuse_doubles(sinks, outputs)
    inputs = {**_recording(camera, "the source"), **_files(models)}
    masks = next((path for option, path in outputs if option == "--masks"), None)
    there = [] if masks is None else list(entries(masks, ".png"))
    refuse_overwriting([*outputs, *(("--masks", path) for path in there)], inputs)
    for option, path in outputs:
        if option.startswith("--collect"):
            _refuse_source_in(path, (file for file, what in inputs.items() if what == "the source"))
    if masks is None:
        return
    read = {os.path.dirname(path) or "." for path, what in inputs.items() if what == "the source" and _is_picture(path)}
    if any(same_place(masks, folder) for folder in read):
        raise ConfigError(
            f"--masks {masks} is the folder that the source's pictures lie in",
            why="masks are pictures too: the next run would read them",
            hint="choose another folder",
        )
    _refuse_foreign(masks, there, force)


def _refuse_source_in(collected: Path, files: Iterable[str]) -> None:
    """Refuse to collect frames of the collected frames themselves."""
    folder = os.path.realpath(collected)
    found = next((file for file in files if f"{os.path.realpath(file)}/".startswith(f"{folder}/")), None)
    if found is not None:
        raise ConfigError(
            f"--collect {collected} holds the source, {found}",
            why="frames there are replaced by better ones",
            hint="choose another folder",
        )


def _refuse_doubles(sinks: Sequence[AskedSink], outputs: Iterable[Tuple[str, Path]]) -> None:
    taken: Dict[str, str] = {}
    for option, path in outputs:
        real = os.path.realpath(path)
        if real in taken:
            raise ConfigError(f"{taken[real]} and {option} both write to {path}", hint="give each a place of its own")
        taken[real] = option
    for option, address in sinks:
        if sinks.count((option, address)) > 1:
            raise ConfigError(f"--{option} {mask_password(address)} was given twice", hint="once is enough")


def _refuse_foreign(masks: Path, there: List[Path], force: bool) -> None:
    """Refuse a folder with other pictures than masks of ``run``; warn where masks of an earlier run will stay."""
    from rtda_deploy.cli.terminal.console import warn
    from rtda_deploy.own_masks import is_own_mask

    foreign = [path for path in there if not is_own_mask(path)]
    if foreign and not force:
        raise ConfigError(
            f"--masks {masks} holds {len(foreign)} pictures that are no masks of run, such as {foreign[0].name}",
            why="masks of this run would replace some of them and lie between the others",
            hint="choose another folder   (--force writes into it as it is)",
        )
    if there:
        warn(f"{masks} holds {len(there)} masks of earlier runs: those that this run does not write again stay there")


def check_bench(model: Path, source: str, spec: Optional[Path], out: Optional[Path], save: Optional[Path]) -> None:
    """``bench``: ``times.json`` and ``report.html``, and the file of ``--save``."""
    written = _in(out, "times.json", "report.html") + ([("--save", save)] if save else [])
    refuse_overwriting(written, {**_recording(source, "the source"), **_files((model, spec))})


def check_eval(models: Sequence[Path], data: str, spec: Optional[Path], out: Optional[Path], flicker: str = "") -> None:
    """``eval``: its page and figures.

    Raises:
        ConfigError: If one of them is read, or if the page there is another verb's, such as a training's.
    """
    from rtda_training.readers import files_read

    if out is not None and (out / "report.html").is_file() and not (out / "results.json").is_file():
        raise ConfigError(f"{out}/report.html is there already, of another command", hint="choose another --out")
    inputs = {**_files((*models, spec)), **dict.fromkeys(files_read(data), "--data")}
    inputs.update(dict.fromkeys(files_read(flicker), "--flicker"))
    refuse_overwriting(_in(out, "report.html", "results.json"), inputs)


def check_verify(a: Path, b: Path, frames: str, out: Optional[Path]) -> None:
    """``verify``: its page."""
    refuse_overwriting(_in(out or b.parent, "verify.html"), {**_files((a, b)), **_recording(frames, "--frames")})


def check_translate(translator: Path, data: str, out: Path) -> None:
    """``data translate``: a folder of pictures, which is none of those that are read.

    Raises:
        ConfigError: If it is, or lies among them: they would be taken for translated ones, or these for the set's.
    """
    from rtda_training.readers import files_read

    inputs = {**_files((translator,)), **dict.fromkeys(files_read(data), "--data")}
    written = [path for path in out.rglob("*") if path.is_file()] if out.is_dir() else []
    refuse_overwriting([("--out", path) for path in written], inputs)
    _refuse_inside(out, files_read(data))


def check_cvat(data: str, written: Iterable[Path]) -> None:
    """``data cvat``: the archive and its labels."""
    from rtda_training.readers import files_read

    refuse_overwriting([("--out", path) for path in written], dict.fromkeys(files_read(data), "DATA"))


def check_frames(footage: str, out: Path) -> None:
    """``data frames``: a folder of frames, which is not in one that is read.

    Raises:
        ConfigError: If it is: the frames would be taken for footage.
    """
    from rtda_training.readers import files_read

    _refuse_inside(out, files_read(footage))


def check_label(footage: Iterable[str], out: Path) -> None:
    """``label``: a folder of masks, which is not in one that is read.

    Raises:
        ConfigError: If it is: the masks would be taken for footage.
    """
    _refuse_inside(out, [os.path.expanduser(text) for text in footage])


def _refuse_inside(out: Path, read: Iterable[str]) -> None:
    above = (Path(os.path.realpath(out)), *Path(os.path.realpath(out)).parents)
    for path in read:
        if os.path.isdir(path) and any(same_place(path, folder) for folder in above):
            raise ConfigError(f"--out {out} lies in the set that is read, {path}", hint="choose a folder beside it")


def _in(folder: Optional[Path], *names: str) -> List[Tuple[str, Path]]:
    return [("--out", folder / name) for name in names] if folder is not None else []


def _files(paths: Iterable[Optional[Path]]) -> Dict[str, str]:
    return {str(path): path.name for path in paths if path is not None}


def _recording(address: str, name: str) -> Dict[str, str]:
    from rtda_runtime.sources.kinds import source_files

    return dict.fromkeys(map(str, source_files(address)), name) if address else {}


def _is_picture(path: str) -> bool:
    from rtda_runtime.sources.names import PICTURE_SUFFIXES

    return path.lower().endswith(PICTURE_SUFFIXES)
