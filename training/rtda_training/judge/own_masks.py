"""Labels that nobody made: masks as a network wrote them, in a folder of ``run --collect`` that was not corrected.

They say how much others agree with that network, so that it seems better than any other. Which masks they are is known
from the files, which network it was from the folder's lines.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import List, Optional, Sequence, Set, Tuple

from rtda_deploy.own_masks import is_own_mask
from rtda_training.readers import LabelledSet

__all__ = ["CORRECT", "uncorrected"]

CORRECT = "rtda-deploy data cvat"  # what to type first; the notes say it
_LINES = "frames.jsonl"  # of run --collect, beside the folders of pictures and labels
_DIGITS = 12  # of a SHA-256; as many as name a model elsewhere


def uncorrected(labelled: LabelledSet, frames: Optional[Sequence[int]] = None) -> Tuple[str, ...]:
    """What to know of labels that are masks as a network wrote them; empty where none is.

    Args:
        labelled: Frames and labels.
        frames: Which of them are used; None: all.
    """
    files = [Path(labelled.label_name(index)) for index in (range(len(labelled)) if frames is None else frames)]
    own = [path for path in files if is_own_mask(path)]
    if not own:
        return ()
    networks = _networks(own)
    who = f" ({', '.join(networks)})" if networks else ""
    which = "all" if len(own) == len(files) else f"{len(own)} of"
    return (
        f"{which} {len(files)} labels of {labelled.address} are as a network wrote them{who} and nobody changed them:"
        f" they favour that network and what was made of it; correct them first ({CORRECT})",
    )


def _networks(masks: Sequence[Path]) -> List[str]:
    """What the lines beside these masks call the networks that wrote them; empty where there are no lines."""
    found: Set[str] = set()
    for folder in {path.parent.parent for path in masks}:
        names = {path.stem for path in masks if path.parent.parent == folder}
        try:
            texts = (folder / _LINES).read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            continue
        found |= {_network(text, names) for text in texts}
    return sorted(found - {""})


def _network(text: str, names: Set[str]) -> str:
    """The network of a line, if it is that of one of these frames and whole."""
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        return ""
    if not isinstance(line, dict) or line.get("id") not in names or not line.get("model"):
        return ""
    digest = line.get("sha256")
    return f"{line['model']} {digest[:_DIGITS]}" if isinstance(digest, str) else str(line["model"])
