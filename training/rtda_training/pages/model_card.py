"""``MODEL_CARD.md`` of a run: what a network was made of, what it was scored on, and what is not known of it."""

from __future__ import annotations

import contextlib
import html
import math
import platform
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from rtda_deploy import __version__
from rtda_deploy.card import card_from_json, card_sentence
from rtda_deploy.errors import RtdaError
from rtda_deploy.files import sha256_file, write_text
from rtda_training.checkpoint import Checkpoint, model_from_checkpoint, read_checkpoint
from rtda_training.data.address import DataAddress
from rtda_training.data.readers.kinds import DATA_KINDS
from rtda_training.loop.events import TrainResult
from rtda_training.loop.verdict import ranking_sentence, unfinished_run
from rtda_training.models import count_macs, count_parameters
from rtda_training.models.backbones import BACKBONES
from rtda_training.plan import PlanConfig, StageConfig
from rtda_training.readers import files_read, open_unlabelled
from rtda_training.run_folder import git_hash, read_rows

__all__ = ["MODEL_CARD", "licence_of", "write_model_card"]

MODEL_CARD = "MODEL_CARD.md"
UNKNOWN = "unknown"
_NOT_LEARNED = "looked at, not learned from"
_OURS = "drawn by rtda-deploy: Apache-2.0"
_LICENCES = ("LICENSE*", "LICENCE*", "COPYING*", "license*", "licence*")
_SHOWN = 80  # characters of a licence's first line
_READ = 4096  # bytes of a licence that are looked at


def write_model_card(plan: PlanConfig, folder: Path, result: TrainResult, *, trained: bool = True) -> Path:
    """Write ``MODEL_CARD.md`` into a run's folder, whole or not at all; a data set that is gone is said to be.

    Args:
        plan: What was done.
        folder: Of the run, with ``last.pth``; with ``best.pth`` where nothing was trained.
        result: What it came to.
        trained: Whether anything was; else ``best.pth`` is ``plan.init`` with other batch norms, or as it was.

    Raises:
        FileAccessError: If it cannot be written.
    """
    rows = read_rows(folder)
    try:
        last = read_checkpoint(folder / ("last.pth" if trained else "best.pth"))
        network, calibration = [*_network(plan, last)], last.card
    except RtdaError as err:  # it diverged: the run is finished all the same, and the card says it
        network, calibration = ["## Network", f"{_plain(plan.network_text)}. {_plain(err.message)}."], ""
    parts = [
        f"# Model card: {_plain(plan.name)}",
        _plain(plan.description) if trained else "",
        *network,
        *_data(plan, result),
        *_weights(plan),
        *(_training(plan) if trained else _norms_alone(result)),
        *_figures(plan, rows, result),
        *_calibration(calibration),
        *_limits(plan, calibration, rows, trained, result),
        *_files(folder),
    ]
    return write_text(folder / MODEL_CARD, "\n\n".join(part for part in parts if part) + "\n")


def licence_of(address: str) -> str:
    """What is known of the licence of a data set: what the first line of a licence in its folder says, else "unknown".

    A README there is named, not interpreted.
    """
    with contextlib.suppress(RtdaError):
        found = DataAddress.parse(address)
        if found.kind in DATA_KINDS and DATA_KINDS[found.kind].rendered:
            return _OURS
    for name in files_read(address)[:1]:
        folder = Path(name) if Path(name).is_dir() else Path(name).parent
        for path in _named(folder, _LICENCES):
            return f"{_code(path.name)} in its folder: {_plain(_first_line(path))}"
        for path in _named(folder, ("README*", "readme*")):
            return f"{UNKNOWN}; {_code(path.name)} in its folder may say"
    return UNKNOWN


def _named(folder: Path, patterns: Sequence[str]) -> Iterator[Path]:
    with contextlib.suppress(OSError):
        yield from (path for pattern in patterns for path in sorted(folder.glob(pattern)) if path.is_file())


def _first_line(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            lines = stream.read(_READ).decode("utf-8", "replace").splitlines()
    except OSError:
        return "not readable"
    return next((line.strip(" #*=\t")[:_SHOWN] for line in lines if line.strip(" #*=\t")), "empty")


def _network(plan: PlanConfig, last: Checkpoint) -> Iterator[str]:
    network, spec = model_from_checkpoint(last), last.spec
    size = f"{plan.size_hw[1]}x{plan.size_hw[0]}"
    yield "## Network"
    yield (
        f"{_plain(plan.network_text)}, {count_parameters(network):,} parameters, "
        f"{count_macs(network, plan.size_hw) / 1e9:.2f} G multiply-adds for a picture of {size}."
    )
    yield f"{len(spec.class_names)} classes: {_plain(', '.join(spec.class_names))}."


def _data(plan: PlanConfig, result: TrainResult) -> Iterator[str]:
    used = [
        ("learned from, with labels" if _labels_of(plan, "source") else _NOT_LEARNED, plan.source, "train"),
        (_use_of_target(plan, result), plan.target, "train"),
        (_use_of_labelled(plan), plan.labelled_target, "train"),
        ("chosen on, with labels", _chosen_on(result), "val"),
        ("scored on", plan.validation, "val"),
    ]
    rows = [(part, _code(data), _pictures(data, split), licence_of(data)) for part, data, split in used if data]
    yield "## Data"
    yield _table(("", "data", "pictures", "licence"), rows)


def _labels_of(plan: PlanConfig, domain: str) -> bool:
    return any(stage.labelled == domain for stage in plan.stages)


def _adapts(plan: PlanConfig, result: TrainResult) -> bool:
    """Whether a stage uses unlabelled target pictures, or networks with their batch-norm statistics were compared."""
    return bool(result.ranking) or any(stage.uses_target for stage in plan.stages)


def _use_of_target(plan: PlanConfig, result: TrainResult) -> str:
    if _labels_of(plan, "target"):
        return "learned from, with labels"
    return "adapted to, without labels" if _adapts(plan, result) else _NOT_LEARNED


def _use_of_labelled(plan: PlanConfig) -> str:
    learned = _learns_from_labelled(plan)
    return "target frames with labels" if learned else "target frames seen, their labels unused (weight 0)"


def _learns_from_labelled(plan: PlanConfig) -> bool:
    """Whether labelled target frames teach: with a weight of 0, the control's, batch norms alone see them."""
    stages = [stage for stage in plan.stages if stage.trains_on_target_labels]
    return any(stage.settings["target-labels"].weight > 0 for stage in stages)


def _chosen_on(result: TrainResult) -> str:
    """Labelled frames that the network was chosen by; empty: there were none."""
    ranking = result.ranking or {}
    return str(ranking["labelled"]) if ranking.get("by_labels") else ""


def _pictures(address: str, split: str = "train") -> str:
    try:
        return str(len(open_unlabelled(address, split=split)))
    except RtdaError:
        return "can no longer be opened"


def _weights(plan: PlanConfig) -> Iterator[str]:
    yield "## Weights it started from"
    rows = []
    packaged = BACKBONES[plan.network_settings()["backbone"]].packaged
    if plan.backbone_weights and packaged is not None and not Path(plan.backbone_weights).is_file():
        rows.append((f"backbone: {_code(packaged.module)}, ImageNet", "", packaged.licence))
    elif plan.backbone_weights:
        rows.append((f"backbone: {_code(plan.backbone_weights)}", _sha256(plan.backbone_weights), UNKNOWN))
    if plan.init:
        beside = (Path(plan.init).parent / MODEL_CARD).is_file()
        known = f"see {MODEL_CARD} beside it" if beside else UNKNOWN
        rows.append((f"network: {_code(plan.init)}", _sha256(plan.init), known))
    yield _table(("weights", "sha256", "licence"), rows) if rows else "None: random, drawn with the seed."


def _sha256(path: str) -> str:
    try:
        return _code(sha256_file(path))
    except RtdaError:
        return "the file is gone"


def _training(plan: PlanConfig) -> Iterator[str]:
    rows = [
        (_plain(stage.name), str(stage.steps), _plain(", ".join(map(str, stage.objectives))), _choices(stage))
        for stage in plan.stages
    ]
    yield "## Training"
    yield f"Batches of {plan.batch_size} pictures, seed {plan.seed}. Every setting stands in `config.toml`."
    yield _table(("stage", "steps", "learned by", "slots that are filled"), rows)


def _norms_alone(result: TrainResult) -> Iterator[str]:
    yield "## Training"
    chosen = _plain(str((result.ranking or {}).get("chosen", "")))
    yield (
        "Nothing was trained. Networks that differ in their batch-norm statistics alone were compared;"
        f" `best.pth` is: {chosen}. All other weights are those that it started from."
    )


def _choices(stage: StageConfig) -> str:
    slots = ("sampler", "style", "labeler", "mixer", "bn_statistics")
    return _plain(", ".join(f"{slot} {value}" for slot in slots if (value := getattr(stage, slot)) != "none"))


def _figures(plan: PlanConfig, rows: Sequence[Mapping[str, Any]], result: TrainResult) -> Iterator[str]:
    yield "## Figures"
    if result.ranking:
        yield _plain(ranking_sentence(result.ranking))
    if math.isnan(result.last_miou):
        yield (
            "No labelled picture was scored."
            if not _chosen_on(result)
            else ("No other labelled picture was scored: on new ones the chosen network is likely a little worse.")
        )
        return
    best = f"{100 * result.best_miou:.1f} {_plain(result.best_at)}, the best validation"
    chosen = "" if result.ranking else "; `best.pth` is that network, and was chosen on these pictures"
    yield (
        f"mIoU in percent on {_code(plan.validation)} (its val split unless the address says otherwise), one seed "
        f"({plan.seed}): {100 * result.last_miou:.1f} of `last.pth`; {best}{chosen}."
    )
    last = next((row for row in reversed(rows) if isinstance(row.get("val_iou"), dict)), None)
    if last is not None:
        known = [(_plain(name), "–" if value is None else f"{value:.1f}") for name, value in last["val_iou"].items()]
        yield _table(("class", "IoU of last.pth, %"), known)


def _calibration(text: str) -> Iterator[str]:
    card = card_from_json(text)
    yield "## Calibration"
    if card is None:
        yield "No card: no labelled pictures were there to measure one on."
        return
    yield f"{_plain(card_sentence(card.to_dict()))}."
    yield "Its confidences were measured there; on another domain they may say anything."


def _limits(
    plan: PlanConfig, calibration: str, rows: Sequence[Mapping[str, Any]], trained: bool, result: TrainResult
) -> Iterator[str]:
    limits = [
        *(_seen(plan, rows) if trained else ()),
        f"It sees {plan.size_hw[1]}x{plan.size_hw[0]} pixels: what is smaller than a few of them there is lost.",
    ]
    if plan.target and _adapts(plan, result):
        chosen = "chosen by labels of a few of its frames" if _chosen_on(result) else "without labels"
        how = "with labels of a few of its frames" if _learns_from_labelled(plan) else chosen
        limits.append(f"It was adapted to {_code(plan.target)}, {how}; other places may be another domain.")
    elif _learns_from_labelled(plan):
        limits.append(
            f"Of its target it learned from the labelled frames {_code(plan.labelled_target)} alone; other places may"
            " be another domain."
        )
    found = next((row for row in reversed(rows) if isinstance(row.get("val_iou"), dict)), None)
    blind = [name for name, value in found["val_iou"].items() if value is not None and value < 1.0] if found else []
    if blind:
        limits.append(f"It does not find: {_plain(', '.join(blind))} (IoU below 1 %).")
    if card_from_json(calibration) is None:
        limits.append("Without a calibration card nothing tells how much its confidences are worth.")
    yield "## Limits"
    yield "\n".join(f"- {limit}" for limit in limits if limit)


def _seen(plan: PlanConfig, rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What of its training limits a network."""
    pictures = _pictures(plan.source)
    seen = sum(stage.steps for stage in plan.stages) * plan.batch_size
    if pictures.isdigit():
        learned = f"It learned from {pictures} labelled pictures of {_code(plan.source)}"
        yield f"{learned}, and saw {seen:,} in all, each counted as often as it came."
    else:
        yield f"It saw {seen:,} pictures in training."
    yield "One seed: how far another would end from here is not known."
    yield unfinished_run(plan, rows)


def _files(folder: Path) -> Iterator[str]:
    names = [name for name in ("last.pth", "best.pth") if (folder / name).is_file()]
    yield "## Files and versions"
    yield _table(("file", "sha256"), [(_code(name), _sha256(str(folder / name))) for name in names])
    versions = f"rtda-deploy {__version__}, torch {torch.__version__}, Python {platform.python_version()}"
    yield f"Written by {versions}, git {_plain(git_hash())}."


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _plain(text: str) -> str:
    """Text of others that can neither end a cell nor be markup."""
    return html.escape(" ".join(str(text).split()), quote=False).replace("|", "\\|").replace("`", "'")


def _code(text: str) -> str:
    return "`" + " ".join(str(text).split()).replace("`", "'").replace("|", "\\|") + "`"
