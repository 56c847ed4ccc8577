"""What the demo leaves behind: ``summary.json`` and ``report.html``."""

from __future__ import annotations

import json
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Tuple

if TYPE_CHECKING:
    import numpy as np

    from rtda_export.parity.scoring import Evaluation

__all__ = ["HEADERS", "save_summary", "score_rows", "summary_rows"]

HEADERS = ("source-only", "control", "adapted", "gain", "over control")  # of summary_rows, after the name
_SHOWN = (3, 17, 42)  # pictures of the test split that the report shows


def save_summary(
    folder: Path,
    plan: Dict[str, Any],
    training: Dict[str, Any],
    before: Evaluation,
    control: Optional[Evaluation],
    after: Evaluation,
    stats: Dict[str, Any],
    seconds: Dict[str, float],
) -> Dict[str, Any]:
    """Write ``summary.json`` and ``report.html``; gives the summary.

    ``source_only``, ``control``, ``adapted``: scores in percent of the control's first stage, of the same training
    whose method tells the network nothing (None where there is no such), and of the exported file. ``gain``: mIoU
    points from the first to the last; ``over_control``: from the second to the last. ``training``: steps per stage,
    seconds, what was reused. ``runtime``: figures of the run on the clip, as ``run --json``. ``seconds``: per part of
    the demo. ``machine``, ``versions``, ``files``.
    """
    from rtda_deploy import __version__
    from rtda_deploy.files import write_text

    summary = {
        "format": "rtda.demo/1",
        "source_only": before.to_dict(),
        "control": None if control is None else control.to_dict(),
        "adapted": after.to_dict(),
        "gain": _points(after, before),
        "over_control": None if control is None else _points(after, control),
        "training": training,
        "runtime": stats,
        "seconds": seconds,
        "machine": f"{platform.machine()}, {platform.platform()}",
        "versions": {"rtda-deploy": __version__, "python": platform.python_version()},
        "files": sorted(path.name for path in folder.iterdir() if path.is_file() and path.name[0] != "."),
    }
    write_text(folder / "summary.json", json.dumps(summary, indent=2) + "\n")
    _save_page(folder, plan, summary, before, after)
    return summary


def summary_rows(summary: Dict[str, Any]) -> List[Tuple[Any, ...]]:
    """Rows of the one table the demo ends with, under ``HEADERS``: scores, then milliseconds per stage."""
    runtime = summary["runtime"]
    rows = score_rows(summary)
    rows += [("", "", "", "", "", ""), ("ms per frame on clip.mp4", "p50", "p95", "p99", "", "")]
    rows += [
        (_stage(stage), *(f"{values[key]:.1f}" for key in ("p50", "p95", "p99")), "", "")
        for stage, values in runtime["stages"].items()
    ]
    rows.append((f"{runtime['fps']:.1f} fps, {runtime['frames']} frames", "", "", "", "", ""))
    return rows


def score_rows(summary: Dict[str, Any]) -> List[Tuple[Any, ...]]:
    """mIoU and pixel accuracy under ``HEADERS``, percent and points; a dash where the recipe has no control."""
    before, control, after = (summary[key] for key in ("source_only", "control", "adapted"))
    rows: List[Tuple[Any, ...]] = []
    for name, key in (("mIoU %", "miou"), ("pixel accuracy %", "pixel_accuracy")):
        cells = [f"{before[key]:.1f}", f"{control[key]:.1f}" if control else "–", f"{after[key]:.1f}"]
        over = f"{after[key] - control[key]:+.1f}" if control else "–"
        rows.append((name, *cells, f"{after[key] - before[key]:+.1f}", over))
    return rows


def _points(one: Evaluation, other: Evaluation) -> float:
    return round(100 * (one.scores.miou() - other.scores.miou()), 2)


def _stage(name: str) -> str:
    """A stage for people; the clip is a recording, so what is an age for a camera is the time from file to mask."""
    return "file to mask" if name == "age" else name


def _save_page(
    folder: Path, plan: Dict[str, Any], summary: Dict[str, Any], before: Evaluation, after: Evaluation
) -> None:
    from rtda_deploy.report import ReportPage

    steps = ", ".join(f"{name} {count}" for name, count in summary["training"]["steps"].items())
    page = ReportPage("rtda-deploy demo", f"ToyTown · BiSeNet-{plan['backbone']} at {plan['size']} · steps: {steps}")
    page.text(
        "A network learned the labelled source domain and was adapted to the target domain without any of its labels."
        " Scores are those of the target's test split; the adapted ones are of the exported model.onnx."
    )
    page.table(("target's test split", *HEADERS), score_rows(summary))
    if summary["control"]:
        page.text(
            "The control is the same training in which the method tells the network nothing: what adaptation gains is"
            " the last column."
        )
    page.heading("What it sees")
    for index in _SHOWN:
        picture, caption = _comparison(folder, plan, after, index)
        page.picture(picture, caption=caption)
    page.heading("IoU per class")
    names = list(after.scores.class_names)
    rows = [(name, before.to_dict()["iou"][name], after.to_dict()["iou"][name]) for name in names]
    page.table(("class", "source-only %", "adapted %"), rows)
    page.heading("Time per frame on the clip")
    stages = summary["runtime"]["stages"]
    page.table(
        ("ms", "p50", "p95", "p99", "max"),
        [(_stage(s), *(round(v[k], 2) for k in ("p50", "p95", "p99", "max"))) for s, v in stages.items()],
    )
    parts = [s for s in stages if s not in ("age", "capture")]
    page.stacked(parts, [stages[s]["p50"] for s in parts], unit="ms", caption="median of each stage")
    page.text(
        f"{summary['runtime']['fps']:.1f} frames/s on {summary['runtime']['provider']}. The clip is a recording, read"
        " as fast as it is used; frames are read ahead, and wait."
    )
    page.heading("Confusion, adapted")
    page.matrix(
        names, after.confusion.tolist(), caption="Rows: true class. Columns: predicted class. Percent of the row."
    )
    page.data(summary)
    page.save(folder / "report.html")


def _comparison(folder: Path, plan: Dict[str, Any], after: Evaluation, index: int) -> Tuple[bytes, str]:
    """One test picture: frame, source-only, adapted, truth; as the content of a JPEG."""
    from rtda_deploy.cli.demo.parts import source_only
    from rtda_runtime import colorize
    from rtda_training.pages.sheets import sheet
    from rtda_training.readers import open_labelled

    data = open_labelled(after.data)
    index %= len(data)
    frame, label = data.frame(index), data.label(index)
    first = source_only(folder, plan["stages"][0]["name"])
    masks = {"source-only": _mask_of(first, frame), "adapted": _mask_of(folder / "model.onnx", frame), "truth": label}
    tiles = [("frame", frame), *((name, colorize(mask, after.spec.palette)) for name, mask in masks.items())]
    return sheet(tiles, columns=2), data.name(index)


def _mask_of(model: Path, frame: np.ndarray) -> np.ndarray:
    from rtda_export.parity.networks import open_network
    from rtda_runtime.mask.preprocess import network_input, preprocess

    with open_network(model) as network:
        image = network_input(network.spec)
        preprocess(frame, network.spec, image)
        return network.mask(network.answer(image), (frame.shape[0], frame.shape[1]))
