"""Training from Python, as ``rtda-deploy train`` does it: the same run folder, the same refusals.

Importing this module loads no torch; :func:`train`, :func:`evaluate` and :func:`load` do, once what they were given is
known to make sense.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rtda_deploy.errors import DataError
from rtda_deploy.run_folders import working_in
from rtda_training.loop.events import StopRequest, Tell, TrainEvent, TrainResult
from rtda_training.plan import PlanConfig
from rtda_training.run_choice import choose_run, is_first_process, refuse_losses
from rtda_training.run_folder import CONFIG, clear_run, is_run, save_config
from rtda_training.toml_file import toml_value

if TYPE_CHECKING:
    import numpy as np

    from rtda_deploy.spec import ModelSpec
    from rtda_training.adapt.context import OpenModel
    from rtda_training.metrics import Scores
    from rtda_training.models import SegmentationNetwork
    from rtda_training.readers import LabelledSet

__all__ = ["LoadedNetwork", "evaluate", "load", "train", "train_plan"]


class LoadedNetwork(NamedTuple):
    """A network in evaluation mode, on the CPU, and its contract."""

    network: SegmentationNetwork
    spec: ModelSpec


def train(
    recipe: str = "",
    *,
    source: str = "",
    target: str = "",
    labelled_target: str = "",
    val: str = "",
    check: str = "",
    out: str | Path | None = None,
    resume: bool = False,
    force: bool = False,
    on_event: Tell | None = None,
    stop: StopRequest | None = None,
    open_model: OpenModel | None = None,
    init: str | Path = "",
    backbone_weights: str | Path = "",
    overrides: Sequence[str] = (),
    **settings: Any,
) -> TrainResult:
    """Train a network, or adapt one to a domain without labels; writes the run folder that ``rtda-deploy train`` does.

    Args:
        recipe: Name of a recipe, or path of a TOML file; with ``resume`` it may be left away, and with
            ``source`` beside ``labelled_target``, which takes ``few-labels``, or beside ``target`` alone:
            ``recommended``.
        source: Labelled domain, ``kind:path?key=value``; empty: the recipe's.
        target: Unlabelled domain; empty: the recipe's.
        labelled_target: A few labelled frames of the target, which are learned from beside what the recipe does.
        val: Labelled set that ``best.pth`` is chosen on; empty: where target pictures are used, it is the network that
            ranks first on them without labels, else the best on the source's val split.
        check: A few labelled frames of the target that nothing learns from: they choose ``best.pth`` among the networks
            of the run, each with its own and with other batch norms; empty: none.
        out: Run folder; None: ``runs/train/<time>-<recipe>``.
        resume: Go on with the run in ``out``, or with the newest of the recipe, with its own settings.
        force: Throw an earlier run in ``out`` away.
        on_event: Told of progress.
        stop: ``stop.ask()``, from a signal's handler or another thread, ends the training with a checkpoint.
        open_model: Opens a teacher that is no checkpoint (``.onnx``, an engine) as a ``rtda_training.judge.Candidate``,
            in a ``with`` block; the command line gives its own.
        init: Checkpoint to start from.
        backbone_weights: ImageNet file for the backbone.
        overrides: ``key=value`` texts, as typed after ``--set``.
        settings: Settings of the recipe by name: ``steps=500``, ``size="512x256"``, ``optimizer={"kind": "sgd"}``;
            a dotted one as ``**{"adapted.fda.beta": 0.05}``.

    Raises:
        ConfigError: If a recipe, setting or address is unknown, ``out`` holds a run, or something read would be
            overwritten.
        FolderBusyError: If another process writes to ``out``.
        CheckpointError: If what was given contradicts the run that is resumed.
        TrainingStopped: If ``stop`` was asked; a ``KeyboardInterrupt``.
        RtdaError: Whatever else makes the training impossible, before its first step.
    """
    chosen = choose_run(
        recipe,
        [*overrides, *_as_typed(settings)],
        Path(out) if out is not None else None,
        resume,
        force,
        source=source,
        target=target,
        labelled_target=labelled_target,
        val=val,
        check=check,
        init=str(init),
        backbone_weights=str(backbone_weights),
    )
    folder, first = chosen.folder, is_first_process()
    if chosen.note and first and on_event is not None:
        on_event(TrainEvent("note", chosen.note))
    with working_in(folder) if first else contextlib.nullcontext():
        if first:
            refuse_losses(chosen, recipe, force)
        clear = not chosen.resume and is_run(folder)
        return train_plan(
            chosen.plan,
            folder,
            resume=chosen.resume,
            clear=clear,
            on_event=on_event,
            stop=stop,
            open_model=open_model,
        )


def train_plan(
    plan: PlanConfig,
    folder: Path,
    *,
    resume: bool = False,
    clear: bool = False,
    report: bool = True,
    on_event: Tell | None = None,
    stop: StopRequest | None = None,
    open_model: OpenModel | None = None,
) -> TrainResult:
    """Train a plan in a folder that the caller holds; writes ``config.toml`` before and its pages after.

    Of several processes the first one writes and tells.

    Args:
        plan: What to do.
        folder: Where.
        resume: Go on with the folder's ``last.pth`` where it is there.
        clear: Remove an earlier run in the folder, once it is known that this one can start.
        report: Whether the pages are written.
        on_event: Told of progress.
        stop: Asked to end the training early.
        open_model: As of :func:`train`.
    """
    from rtda_training.checkpoint import read_checkpoint
    from rtda_training.trainer import Trainer

    state = read_checkpoint(folder / "last.pth") if resume and (folder / "last.pth").is_file() else None
    trainer = Trainer(plan, folder, on_event, stop, open_model)
    if is_first_process():
        if clear:
            clear_run(folder)
        if not (resume and (folder / CONFIG).is_file()):
            save_config(plan, folder)
    result = trainer.run(state)
    if report and is_first_process():
        from rtda_training.pages.model_card import write_model_card
        from rtda_training.pages.run_page import write_run_page

        write_run_page(plan, folder, result)
        write_model_card(plan, folder, result)
    return result


def load(checkpoint: str | Path) -> LoadedNetwork:
    """The network of a ``.pth`` in evaluation mode, and its spec; ``network(x)`` gives logits.

    Args:
        checkpoint: Of this project, or of a lineage that is known (docs/networks.md).

    Raises:
        FileAccessError: If it cannot be opened.
        CheckpointError: If it is no checkpoint, or of another network than it says.
    """
    from rtda_training.checkpoint import model_from_checkpoint, read_checkpoint

    found = read_checkpoint(checkpoint)
    return LoadedNetwork(model_from_checkpoint(found), found.spec)


def evaluate(
    model: str | Path | LoadedNetwork | Callable[[np.ndarray], np.ndarray],
    data: str | LabelledSet,
    *,
    max_pictures: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Scores:
    """Score a network on labelled pictures, at each label's own size.

    ``rtda-deploy eval`` scores a file with the robot's own code (:func:`rtda_export.evaluate`), and joins class lists
    both ways; here labels are joined by name to the network's classes.

    Args:
        model: A ``.pth``, what :func:`load` gave, or a function from a frame, uint8 (H, W, 3) BGR, to a mask, uint8
            (H, W) of the data's classes.
        data: An address, its test split unless it says otherwise, or an opened set of the network's classes.
        max_pictures: Spread evenly over the set; 0: all.
        progress: Called with (done, total).

    Raises:
        DataError: If no class of the data is the network's, or a label cannot be read.
    """
    from rtda_training.data.config import InputConfig
    from rtda_training.labels import ClassList
    from rtda_training.loop.validate import score, validate
    from rtda_training.metrics import ConfusionMatrix
    from rtda_training.readers import open_labelled

    found = load(model) if isinstance(model, (str, Path)) else model
    if not isinstance(found, LoadedNetwork):
        pictures = open_labelled(data, split="test") if isinstance(data, str) else data
        counts = ConfusionMatrix(pictures.classes.num_classes)
        scores = score(
            lambda frame, _: found(frame), pictures, confusion=counts, max_pictures=max_pictures, progress=progress
        )
    else:
        spec = found.spec
        classes = ClassList(spec.class_names, spec.palette)
        pictures = open_labelled(data, split="test", classes=classes) if isinstance(data, str) else data
        if pictures.classes.names != classes.names:
            raise DataError(f"{pictures.address} has other classes than the network", hint="give its address as a text")
        contract = InputConfig(spec.channel_order, spec.pixel_scale, spec.mean, spec.std, spec.interpolation)
        scores = validate(found.network, pictures, spec.size_hw, contract, max_pictures=max_pictures, progress=progress)
    assert scores is not None  # nothing asks it to stop
    return scores


def _as_typed(settings: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Settings given as Python values, as they would be typed after ``--set``."""
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _as_typed(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}={toml_value(str(value) if isinstance(value, Path) else value)}"
