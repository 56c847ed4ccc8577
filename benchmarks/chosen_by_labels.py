"""What labels of a few frames choose among networks with other batch norms, and what that is worth on the other frames.

    python benchmarks/chosen_by_labels.py MODEL.pth... --footage DATA --labelled DATA [--source DATA] [--frames 3,5,10]

The networks that ``adapt --check`` ranks are made of the footage: batch norms mixed, and shifted where the checkpoint
says what entered its norms on the source, or ``--source`` measures it. They answer every labelled frame once.
Of several models, such as a training leaves, the first is the given.

Then so many of these frames are drawn again and again; the network that they choose (``Paired.better``) is held against
the one given on the frames that were not drawn: ``gain`` is its mean in points of mIoU, ``least`` the worst draw,
``changed`` the share of the draws in which another than the given was chosen. ``always`` takes the most mIoU however
small its lead.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional

import numpy as np
import torch
from rounds import recorded
from tables import table, wide

from rtda_training.checkpoint import Checkpoint, model_from_checkpoint, read_checkpoint
from rtda_training.data.batches import normalise
from rtda_training.judge.check import check_counts, miou_of, paired
from rtda_training.labels import ClassList
from rtda_training.loop.choosing import Contender, candidate_of, contract_of, from_file
from rtda_training.loop.norm_candidates import other_norms
from rtda_training.loop.validate import spread_places, usable_frame
from rtda_training.readers import UnlabelledSet, open_labelled, open_unlabelled
from rtda_training.stages.norm_shift import NormInputs, norm_inputs

_PICTURES, _BATCH = 128, 8  # of the footage, for the statistics


def main() -> int:
    """Measure and print."""
    options = _options()
    device = torch.device("cpu")
    with recorded() as record:
        given = read_checkpoint(options.models[0])
        model_from_checkpoint(given)  # broken numbers are refused before anything is read
        footage = open_unlabelled(options.footage)
        source = open_unlabelled(options.source) if options.source else None
        classes = ClassList(given.spec.class_names, given.spec.palette)
        labelled = open_labelled(options.labelled, split="val", classes=classes)
        counts = {}
        for number, path in enumerate(options.models):
            own = from_file(path.stem if number else "given", path)
            others = other_norms(own.open, lambda: _batches(footage, given), device, _norm_inputs(own, source))
            before = f"{own.name}, " if number else ""
            for one in [own, *(other._replace(name=before + other.name) for other in others)]:
                mask = candidate_of(one, device).mask
                assert mask is not None
                counts[one.name] = check_counts(mask, labelled)
        record.update(told(counts, [int(number) for number in options.frames.split(",")], options.draws))
    print(json.dumps(record) if options.json else _table(record))
    return 0


def told(counts: Dict[str, np.ndarray], frames: List[int], draws: int) -> Dict[str, Any]:
    """Draw frames and choose; JSON-ready: ``miou`` of each network on all frames, and ``rows``.

    Args:
        counts: Confusion matrices int64 (N, C, C) of each network, the given one first.
        frames: How many are drawn.
        draws: How often.
    """
    every = np.stack(list(counts.values()))
    random = np.random.default_rng(0)
    rows = []
    for number in frames:
        gains: Dict[str, List[float]] = {"chosen": [], "always": []}
        for _ in range(draws):
            drawn = np.zeros(every.shape[1], bool)
            drawn[random.choice(every.shape[1], number, replace=False)] = True
            best = int(np.argmax([miou_of(one[drawn].sum(axis=0)) for one in every]))
            chosen = best if best and paired(every[best][drawn], every[0][drawn]).better else 0
            true = [100 * miou_of(one[~drawn].sum(axis=0)) for one in every]
            gains["chosen"].append(true[chosen] - true[0])
            gains["always"].append(true[best] - true[0])
        for way, values in gains.items():
            changed = float(np.mean(np.asarray(values) != 0))
            rows.append(
                {"frames": number, "way": way, "gain": np.mean(values), "least": min(values), "changed": changed}
            )
    miou = {name: 100 * miou_of(one.sum(axis=0)) for name, one in counts.items()}
    return {"miou": miou, "rows": rows, "draws": draws}


def _norm_inputs(own: Contender, source: Optional[UnlabelledSet]) -> Optional[Callable[[Checkpoint], NormInputs]]:
    """What entered a network's norms on its source: as its checkpoint says, else measured; None: not known."""
    if own.open().norm_inputs:
        return lambda found: found.norm_inputs
    if source is None:
        return None
    return lambda found: norm_inputs(model_from_checkpoint(found), _batches(source, found))


def _batches(footage: UnlabelledSet, given: Any) -> Iterator[torch.Tensor]:
    contract, size_hw = contract_of(given.spec), given.spec.size_hw
    places = spread_places(_PICTURES, len(footage))
    for start in range(0, len(places) - 1, _BATCH):
        pictures = [
            normalise(torch.from_numpy(np.ascontiguousarray(usable_frame(footage, place)))[None], contract)
            for place in places[start : start + _BATCH]
        ]
        yield torch.cat([torch.nn.functional.interpolate(one, size=size_hw, mode="bilinear") for one in pictures])


def _table(record: Dict[str, Any]) -> str:
    columns = {">labelled frames": "{frames}", "rule": "{way}", ">gain": "{gain:+.1f}", ">least": "{least:+.1f}"}
    columns[">changed"] = "{changed:%0}"
    networks = " · ".join(f"{name} {value:.1f}" for name, value in record["miou"].items())
    return "\n".join([networks, "", wide(table(columns, record["rows"])), "", f"{record['draws']} draws"])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="+", type=Path, help=".pth files of rtda-deploy train")
    parser.add_argument("--footage", required=True, help="pictures without labels, kind:path?key=value")
    parser.add_argument("--labelled", required=True, help="labelled pictures of the same kind")
    parser.add_argument(
        "--source", default="", help="what the networks learned from, where they do not say enough of it"
    )
    parser.add_argument("--frames", default="3,5,10", help="how many are drawn (default: 3,5,10)")
    parser.add_argument("--draws", type=int, default=60)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
