"""``rtda-deploy models``: which model a robot runs, tried before it is changed, and changed back."""

from __future__ import annotations

import contextlib
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, Iterator, List, Optional, Tuple

import typer

from rtda_runtime.engines.kinds import one_of, providers

if TYPE_CHECKING:
    from rtda_runtime.fleet.store import ModelStore
    from rtda_runtime.fleet.trial import Trial, TrialFrame

__all__ = ["list_models", "promote", "rollback"]

_FOLDER = "Where the models of all names lie."
_NAME = "Which models: FOLDER/NAME (default: the only name there is, else robot)."
_LEAST_RUNS = 40  # of each model: the p95 of fewer is its slowest ones
_FRAMES = "What both are run on, kind:path?key=value; labels are used where it has them."


def list_models(
    folder: Path = typer.Option(Path("models"), help=_FOLDER),
    json_: bool = typer.Option(False, "--json", help="Print one JSON object."),
) -> None:
    """Say which models there are, which one runs, and which one ran before.

    Example: rtda-deploy models list
    """
    from rtda_deploy.cli.terminal.console import note, print_json, print_table
    from rtda_runtime.fleet.store import ModelStore

    rows: List[Dict[str, Any]] = []
    for name in _names(folder):
        store = ModelStore(folder / name)
        last = {entry.get("model"): entry for entry in store.history()}
        for model in store.models():
            entry = last.get(model.digest, {})
            told = {"last": entry.get("what", ""), "time": entry.get("time", "")}
            rows.append({"name": name, "digest": model.digest, "role": model.role, "file": str(model.file), **told})
        for role, digest in store.lost().items():
            rows.append({"name": name, "digest": digest, "role": role, "file": None, "last": "removed", "time": ""})
    if json_:
        print_json({"folder": str(folder), "models": rows})
        return
    if not rows:
        note(_none_in(folder))
        return
    heads = ("name", "model", "", "file", "last", "when")
    print_table(heads, [[row[key] for key in ("name", "digest", "role", "file", "last", "time")] for row in rows])


def promote(
    new: Path = typer.Argument(..., help="An .onnx, an engine, or the first digits of a model that is there."),
    frames: str = typer.Option(..., help=_FRAMES),
    name: Optional[str] = typer.Option(None, help=_NAME),
    folder: Path = typer.Option(Path("models"), help=_FOLDER),
    max_frames: int = typer.Option(100, min=1, help="Of the frames, spread evenly."),
    min_agreement: str = typer.Option("50%", help="The least share of pixels that both must call alike."),
    max_miou_loss: float = typer.Option(1.0, min=0.0, help="mIoU points that the new one may lose, with labels."),
    max_slower: float = typer.Option(1.5, min=0.0, help="How many times the deployed one's p95 the new one's may be."),
    max_p95_ms: Optional[float] = typer.Option(None, help="The most milliseconds of the new one's p95."),
    provider: str = typer.Option("auto", help=f"{one_of(providers())}."),
    threads: Optional[int] = typer.Option(None, min=1, help="CPU threads (default: one per core)."),
    json_: bool = typer.Option(False, "--json", help="Print one JSON object."),
) -> None:
    """Try a model beside the one that runs, on the same frames; make it the current one if it holds the limits.

    Refused: other classes, and what misses a limit (exit 4). Whatever was seen is kept in history.jsonl. What runs
    already goes on with the model it opened.

    Example: rtda-deploy models promote model.onnx --frames folder:frames
    """
    from rtda_deploy.cli.shares import share
    from rtda_deploy.cli.terminal.console import note, print_json, print_next, warn
    from rtda_deploy.errors import LimitMissedError
    from rtda_runtime.fleet.store import ModelStore
    from rtda_runtime.fleet.trial import Limits

    limits = Limits(share(min_agreement, "--min-agreement"), max_miou_loss, max_slower, max_p95_ms)
    store = ModelStore(folder / (name or _only_name(folder)))
    given = _given(store, new)
    with store.locked(), store.candidate(given) as model:
        lost = store.lost().get("current")
        before = store.current if lost is None else None
        number, each, notes = _trial_frames(frames, model.file, max_frames)
        deployed = None if before is None else before.file
        seen = _tried(deployed, model.file, number, each, provider=provider, threads=threads)
        missed = seen.missed(limits)
        record = {"before": before.digest if before else None, "data": frames, "missed": missed, **seen.to_dict()}
        if missed:
            store.refuse(model.digest, record)
        else:
            store.promote(model.digest, record)
    for text in notes:
        note(text)
    if lost is not None:
        warn(f"what was current, {lost}, is not there any more: the new model was tried alone")
    if json_:
        print_json({"name": store.folder.name, "model": model.digest, "promoted": not missed, **record})
    else:
        _show(seen)
    if missed:
        raise LimitMissedError(
            f"{new} is not promoted: {'; '.join(missed)}",
            hint="look at both: rtda-deploy run "
            + shlex.quote(str(store.folder))
            + f" --compare {shlex.quote(str(new))}",
        )
    same = before is not None and before.digest == model.digest
    was = ", as before" if same else f", before {before.digest}" if before else ""
    note(f"current {store.folder} is {model.digest}{was}")
    print_next(f"rtda-deploy run {shlex.quote(str(store.folder))} --camera 0")


def rollback(
    name: Optional[str] = typer.Option(None, help=_NAME),
    folder: Path = typer.Option(Path("models"), help=_FOLDER),
    json_: bool = typer.Option(False, "--json", help="Print one JSON object."),
) -> None:
    """Make the previous model the current one again; once more changes them back.

    Example: rtda-deploy models rollback
    """
    from rtda_deploy.cli.terminal.console import note, print_json
    from rtda_runtime.fleet.store import ModelStore

    store = ModelStore(folder / (name or _only_name(folder)))
    found = store.rollback()
    if json_:
        print_json({"name": store.folder.name, "model": found.digest, "file": str(found.file)})
    else:
        print(found.file)
    note(f"current {store.folder} is {found.digest}; what runs already goes on with the model it opened")


def _names(folder: Path) -> List[str]:
    """Of all stores; one whose first model was refused has a model and no current one."""
    from rtda_runtime.fleet.links import has_links
    from rtda_runtime.fleet.model_folder import is_digest

    def is_store(path: Path) -> bool:
        with contextlib.suppress(OSError):  # no folder, or one that cannot be read
            return has_links(path) or any(is_digest(below.name) for below in path.iterdir())
        return False

    return sorted(path.name for path in folder.iterdir() if is_store(path)) if folder.is_dir() else []


def _none_in(folder: Path) -> str:
    """What to know where there is no model."""
    from rtda_runtime.fleet.links import has_links

    if has_links(folder):
        parent = shlex.quote(str(folder.parent))
        return f"{folder} is one name's folder: rtda-deploy models list --folder {parent} lists its models"
    where = "" if folder == Path("models") else f" --folder {shlex.quote(str(folder))}"
    return f"none in {folder}; rtda-deploy models promote MODEL --frames DATA{where} puts the first one there"


def _only_name(folder: Path) -> str:
    """Raises ConfigError where there are several."""
    from rtda_deploy.errors import ConfigError

    names = _names(folder)
    if len(names) > 1:
        raise ConfigError(f"{folder} has models of {len(names)} names: {', '.join(names)}", hint="say which: --name")
    return names[0] if names else "robot"


def _given(store: ModelStore, new: Path) -> Path:
    """The file that is meant: a path, ``models/NAME@DIGEST``, or the first digits of a digest in the store.

    Raises:
        ConfigError: If no model of the store has such a digest, or several have.
    """
    from rtda_runtime.fleet.deployed import deployed_model

    is_digest = not new.exists() and re.fullmatch("[0-9a-f]{1,64}", str(new), re.IGNORECASE)
    return store.find(str(new)).file if is_digest else deployed_model(new)


def _tried(deployed: Optional[Path], new: Path, number: int, frames: Iterator[TrialFrame], **how: Any) -> Trial:
    """Both on the same frames, with a line of progress."""
    from rtda_deploy.cli.terminal.console import ProgressLines
    from rtda_runtime.fleet.trial import try_models

    repeats = -(-_LEAST_RUNS // max(1, number))
    with ProgressLines() as lines:

        def told(done: int) -> None:
            lines.update("try     frames", done, number)

        return try_models(deployed, new, frames, repeats=repeats, tell=told, **how)


def _trial_frames(address: str, model: Path, most: int) -> Tuple[int, Iterator[TrialFrame], List[str]]:
    """How many there are, the frames, and what a person should know."""
    import numpy as np

    from rtda_deploy.errors import DataError
    from rtda_export.parity.networks import open_network
    from rtda_runtime.fleet.trial import TrialFrame
    from rtda_training.judge.check import refuse_other_classes
    from rtda_training.judge.own_masks import uncorrected
    from rtda_training.labels import ClassList
    from rtda_training.readers import open_labelled, open_unlabelled

    with open_network(model) as network:
        classes = ClassList(network.spec.class_names, network.spec.palette)
    notes: List[str] = []
    labelled: Any = None
    try:
        labelled = open_labelled(address, split="val", classes=classes)
    except DataError as err:
        notes.append(f"labels  none are used: {err.message}")
    found: Any = labelled if labelled is not None else open_unlabelled(address)
    chosen = [int(place) for place in np.unique(np.linspace(0, len(found) - 1, min(most, len(found))).astype(int))]

    if labelled is not None:
        doubts = (*refuse_other_classes(labelled, chosen), *uncorrected(labelled, chosen))
        notes += [f"labels  {text}" for text in doubts]

    def each() -> Iterator[TrialFrame]:
        for index in chosen:
            if labelled is None:
                yield TrialFrame(found.frame(index))
            else:
                yield TrialFrame(*_at_one_size(*found.pair(index)))

    return len(chosen), each(), notes


def _at_one_size(frame: Any, label: Any) -> Tuple[Any, Any]:
    """A label of another size is scaled to its frame's, nearest."""
    if frame.shape[:2] == label.shape:
        return frame, label
    import cv2

    return frame, cv2.resize(label, (frame.shape[1], frame.shape[0]), interpolation=cv2.INTER_NEAREST)


def _show(seen: Trial) -> None:
    from rtda_deploy.cli.terminal.console import print_table

    rows: List[Tuple[str, Any, Any]] = [("p95 ms", *seen.p95_ms)]
    if seen.labelled:
        rows.append(("mIoU %", *seen.miou))
    print_table((f"on {seen.frames} frames", "deployed", "new"), rows)
    if seen.agreement is not None:
        print(f"{100 * seen.agreement:.1f} % of the pixels agree")
        shares = sorted(seen.by_class.items(), key=lambda item: item[1])
        print_table(("class", "both, of either %"), [(name, 100 * share) for name, share in shares])
