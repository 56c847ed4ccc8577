"""``rtda-deploy rank``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, List, Optional

import typer

if TYPE_CHECKING:
    from rtda_training.judge import Ranked, Ranking

__all__ = ["rank"]


def rank(
    models: List[Path] = typer.Argument(..., help="Two or more .pth, .onnx, engines; the first is compared with."),
    footage: str = typer.Option(..., help="Frames without labels, kind:path?key=value."),
    check: str = typer.Option("", help="A few labelled frames of the same kind (five to ten); their labels decide."),
    max_frames: int = typer.Option(100, min=0, help="Of the footage, spread evenly (0: all)."),
    spec: Optional[Path] = typer.Option(None, help="spec.json for files without one."),
    json_: bool = typer.Option(False, "--json", help="Print one JSON object."),
) -> None:
    """Say which of several models is best on footage, without labels, and how sure that is.

    Example: rtda-deploy rank last.pth model.onnx --footage toytown:target
    """
    from rtda_deploy.cli.candidates import candidates, names_of
    from rtda_deploy.cli.terminal.console import ProgressLines, note, print_json, print_next, warn
    from rtda_deploy.errors import ConfigError
    from rtda_deploy.spec import ModelSpec
    from rtda_export.parity.networks import open_network
    from rtda_training.judge import rank as ranked
    from rtda_training.labels import ClassList
    from rtda_training.readers import open_labelled, open_unlabelled

    if len(models) < 2:
        raise ConfigError("one model cannot be ranked", hint="give two or more, such as stage-*.pth of a run")
    given = ModelSpec.load(spec) if spec else None
    with ProgressLines() as lines:
        tell = lines.update
        frames = open_unlabelled(footage, progress=lambda done, total: tell(f"render  {footage}", done, total))
        labelled = None
        if check:
            with open_network(models[0], spec=given) as network:
                classes = ClassList(network.spec.class_names, network.spec.palette)
            labelled = open_labelled(check, split="val", classes=classes)
        found = ranked(candidates(models, spec=given), frames, labelled=labelled, max_frames=max_frames, tell=tell)
    if json_:
        print_json(found.to_dict())
    else:
        _show(found)
    for dropped in found.dropped:
        warn(f"dropped {dropped.name}: {dropped.why}")
    for text in found.notes:
        warn(text)
    note(f"judged  {found.frames} frames of {footage}, {f'labels of {check}' if check else 'without labels'}")
    for key, why in found.left_out.items():
        note(f"rule    {key} not counted: {why}")
    chosen = str(models[names_of(models).index(found.chosen)])
    print_next(f"rtda-deploy export {shlex.quote(chosen)}")


def _show(found: Ranking) -> None:
    from rtda_deploy.cli.terminal.console import print_table

    tested = found.entries[0].check_miou is not None
    heads = (
        "model",
        "agreement",
        "steadiness",
        "InfoMax",
        "norms apart",
        "first in",
        *(("check mIoU",) if tested else ()),
        "",
    )
    print_table(heads, [_row(entry, found, tested) for entry in found.entries])
    print(found.verdict())


def _row(entry: Ranked, found: Ranking, tested: bool) -> List[str]:
    scores = [entry.scores[key] for key in ("ensemble-miou", "views", "infomax")]
    texts = ["–" if value is None or value < -1 else f"{100 * value:.1f}" for value in scores]
    apart = entry.scores["norms"]
    texts.append("–" if apart is None else f"{-apart:.2f}")
    told = ["the first"] if entry.name == found.first else []
    checked = [f"{entry.check_miou:.1f}"] if tested and entry.check_miou is not None else []
    return [
        entry.name,
        *texts,
        f"{100 * entry.first_share:.0f} %",
        *checked,
        "; ".join([*told, *entry.warnings, *entry.remarks]),
    ]
