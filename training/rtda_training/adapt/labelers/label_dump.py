"""Labels of a whole set by the networks of finished stages, written to disk; a killed dump goes on where it was."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rtda_deploy.errors import ConfigError, DataError, FileAccessError, RtdaError, TrainingError
from rtda_deploy.files import file_error, write_bytes, write_text
from rtda_deploy.optional import require
from rtda_training.adapt.context import StageContext
from rtda_training.adapt.pseudo import ConfidenceHistogram, Coverage, fuse, keep_confident, thresholds
from rtda_training.adapt.slots import choice, number
from rtda_training.data.index import in_order
from rtda_training.data.labels.files import read_mask, write_png
from rtda_training.data.pseudo_set import RECORD
from rtda_training.labels import IGNORE_INDEX
from rtda_training.readers import UnlabelledSet

__all__ = ["LabelDump", "OfflineConfig", "label_paths"]

_HISTOGRAM = "histogram.npz"


@dataclasses.dataclass(frozen=True)
class OfflineConfig:
    """Which networks label, which of their outputs are used, and which labels are kept.

    Attributes:
        stages: Finished stages whose networks label; of several the mean softmax counts (FDA's multi-band transfer).
        outputs: How many outputs are used: 1 the main one, 2 the first auxiliary head too (BiSeNet's stride 16), or 3.
        fuse: How outputs become one label: the most ``confidence``, the ``majority``, or the ``mean`` softmax.
        select: ``threshold``: the same confidence for all classes; ``class-balanced``: a quantile of each class's own.
        threshold: Of ``threshold``.
        quantile: Of ``class-balanced``: the share of each class left out (0.5: BDL, RTDA; 0.66: FDA).
        cap: Of ``class-balanced``: confidence from which on a label is always kept.
    """

    stages: tuple[str, ...] = ()
    outputs: int = number(1, 1, 3)
    fuse: str = choice("confidence", "majority", "mean")
    select: str = choice("threshold", "class-balanced")
    threshold: float = number(0.9, 0.0, 1.0)
    quantile: float = number(0.5, 0.0, 1.0)
    cap: float = number(0.9, 0.0, 1.0)


class LabelDump:
    """One dump of labels; what is on disk already is not made again.

    Args:
        config: Which networks label, and which labels are kept.
        stage: The stage that learns from the labels; they are written into its folder.
        target: What is labelled.
        save_every: Pictures that a killed first pass may have to count again.
    """

    def __init__(
        self, config: OfflineConfig, stage: StageContext, target: UnlabelledSet, save_every: int = 100
    ) -> None:
        self._paths = label_paths(stage.folder, len(target))
        self._config, self._stage, self._target, self._save_every = config, stage, target, save_every
        self._folder = stage.folder
        self._networks = [stage.finished(name) for name in config.stages]
        self._keys = [target.key(index) for index in range(len(target))]
        self._fingerprint = self._identity()

    @torch.no_grad()
    def run(self) -> None:
        """Make what is missing, and tell how much is labelled."""
        record = _record(self._folder / RECORD)
        if record.get("fingerprint") != self._fingerprint or not all(path.is_file() for path in self._paths):
            histogram, unreadable = self._counted()
            record = self._written(histogram, unreadable)
        self._stage.tell(str(record["summary"]))

    def _identity(self) -> str:
        """Changes when anything changes that labels depend on."""
        digest = hashlib.sha256()
        for network in self._networks:
            for name, value in sorted(network.state_dict().items()):
                digest.update(name.encode())
                digest.update(value.detach().cpu().contiguous().numpy().tobytes())
        names = self._stage.classes.names
        rest = [dataclasses.asdict(self._config), self._stage.size_hw, names, str(self._target.address), self._keys]
        digest.update(json.dumps(rest).encode())
        return digest.hexdigest()

    # the first pass

    def _counted(self) -> tuple[ConfidenceHistogram, set[int]]:
        """Confidences of all pictures, and which pictures cannot be read."""
        histogram, done, unreadable = self._restored()
        total = len(self._target)
        if done < total:
            self._stage.tell(f"labels  of {total} pictures, by {', '.join(self._config.stages)}")
        for place, frame in enumerate(in_order(lambda index: self._frame(done + index), total - done), start=done):
            if isinstance(frame, np.ndarray):
                histogram.add(*self._predicted(frame))
            else:
                unreadable.add(place)
                self._stage.tell(f"skipped {frame.message}")
            if (place + 1) % self._save_every == 0 or place + 1 == total:
                self._store(histogram, place + 1, unreadable)
        return histogram, unreadable

    def _restored(self) -> tuple[ConfidenceHistogram, int, set[int]]:
        histogram = ConfidenceHistogram(self._stage.num_classes)
        try:
            with np.load(self._folder / _HISTOGRAM, allow_pickle=False) as stored:
                if str(stored["fingerprint"]) == self._fingerprint:
                    histogram.counts = stored["counts"]
                    return histogram, int(stored["done"]), {int(place) for place in stored["unreadable"]}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            pass  # none there, or none of ours: count from the start
        self._clear()
        return histogram, 0, set()

    def _store(self, histogram: ConfidenceHistogram, done: int, unreadable: set[int]) -> None:
        content = io.BytesIO()
        np.savez(
            content,
            counts=histogram.counts,
            done=np.int64(done),
            unreadable=np.array(sorted(unreadable), dtype=np.int64),
            fingerprint=np.array(self._fingerprint),
        )
        write_bytes(self._folder / _HISTOGRAM, content.getvalue())

    def _clear(self) -> None:
        """Take labels of another network, setting or set away, the mark that they are whole first."""
        _remove(self._folder / RECORD, self._folder / _HISTOGRAM, *(self._folder / "labels").glob("*.png"))

    # the second pass

    def _written(self, histogram: ConfidenceHistogram, unreadable: set[int]) -> dict[str, Any]:
        config = self._config
        limits = thresholds(
            histogram, config.select, threshold=config.threshold, quantile=config.quantile, cap=config.cap
        )
        _remove(*(self._folder / "labels").glob(".*.part.png"))  # of a process that was killed while writing
        kept = np.zeros(self._stage.num_classes, dtype=np.int64)
        missing = []
        for place in range(len(self._target)):
            label = self._stored_label(place)
            if label is None:
                missing.append(place)
            else:
                kept += _pixels(label, len(kept))
        frames = in_order(lambda index: self._frame(missing[index]), len(missing))
        for place, frame in zip(missing, frames, strict=True):
            label = self._confident(frame, limits, place in unreadable)
            write_png(self._paths[place], label)
            kept += _pixels(label, len(kept))
        record = self._summarised(limits, Coverage(histogram.predicted, kept), unreadable)
        write_text(self._folder / RECORD, json.dumps(record, indent=1, allow_nan=False) + "\n")
        return record

    def _stored_label(self, place: int) -> np.ndarray | None:
        if not self._paths[place].is_file():
            return None
        try:
            label = read_mask(self._paths[place])
        except (DataError, FileAccessError):
            return None
        return label if label.shape == self._stage.size_hw and label.dtype == np.uint8 else None

    def _confident(self, frame: np.ndarray | RtdaError, limits: np.ndarray, unreadable: bool) -> np.ndarray:
        if unreadable or not isinstance(frame, np.ndarray):
            return np.full(self._stage.size_hw, IGNORE_INDEX, dtype=np.uint8)
        label, confidence = self._predicted(frame)
        return np.asarray(keep_confident(label, confidence, limits)[0].to(torch.uint8).cpu().numpy())

    def _summarised(self, limits: np.ndarray, coverage: Coverage, unreadable: set[int]) -> dict[str, Any]:
        names = self._stage.classes.names
        used = limits[coverage.predicted > 0]
        low, high = (float(used.min()), float(used.max())) if used.size else (float(limits[0]),) * 2
        shown = f"threshold {low:.2f}" if f"{low:.2f}" == f"{high:.2f}" else f"thresholds {low:.2f}..{high:.2f}"
        return {
            "summary": f"labels  {100 * coverage.share:.1f} % of the pixels, {shown}",
            "fingerprint": self._fingerprint,
            "settings": dataclasses.asdict(self._config),
            "size_hw": list(self._stage.size_hw),
            "share": coverage.share,
            "classes": {
                name: {
                    "threshold": float(limits[index]),
                    "predicted_pixels": int(coverage.predicted[index]),
                    "kept_pixels": int(coverage.kept[index]),
                    "kept_share": None if not coverage.predicted[index] else float(coverage.per_class[index]),
                }
                for index, name in enumerate(names)
            },
            "unreadable": [self._keys[place] for place in sorted(unreadable)],
            "target": str(self._target.address),
            "pictures": self._keys,
        }

    # the networks

    def _frame(self, place: int) -> np.ndarray | RtdaError:
        """A picture stretched to the network's size, uint8 (H, W, 3) BGR; or why it cannot be read."""
        cv2 = require("cv2", extra="training", purpose="to prepare pictures")
        height, width = self._stage.size_hw
        try:
            frame = self._target.frame(place)
        except (DataError, FileAccessError) as err:
            return err
        if frame.shape[:2] != (height, width):
            frame = cv2.resize(frame, (width, height), interpolation=cv2.INTER_LINEAR)
        return np.ascontiguousarray(frame)

    def _predicted(self, frame: np.ndarray) -> tuple[Tensor, Tensor]:
        """Label int64 and confidence float32, (1, H, W) each.

        One picture at a time: in batches, rounding would depend on where a killed run went on.
        """
        frames = torch.from_numpy(frame)[None].to(self._stage.fabric.device).float()
        picture = self._stage.normalise(frames)
        each = [_probabilities(network, picture, self._config.outputs) for network in self._networks]
        outputs = [torch.stack(same).mean(dim=0) for same in zip(*each, strict=True)]
        label, confidence = fuse(outputs, self._config.fuse)
        if not bool(torch.isfinite(confidence).all()):
            raise TrainingError(
                f"the networks of {', '.join(self._config.stages)} give values that are not finite",
                hint="look at their losses in results.csv; a lower learning rate may help",
            )
        return label, confidence


def _probabilities(network: nn.Module, picture: Tensor, outputs: int) -> list[Tensor]:
    """Softmax of the main output and of as many auxiliary heads as asked for, (1, C, H, W) each."""
    output = network(picture, aux=outputs > 1)
    logits: Sequence[Tensor] = (output.logits, *output.aux)[:outputs]
    if len(logits) < outputs:
        raise ConfigError(
            f"offline.outputs is {outputs}, the network has {len(logits)}", hint=f"set offline.outputs={len(logits)}"
        )
    return [each.float().softmax(dim=1) for each in logits]


def label_paths(folder: Path, count: int) -> list[Path]:
    """Where a dump into ``folder`` writes the labels of a set's pictures, by their places."""
    return [folder / "labels" / f"{place:06d}.png" for place in range(count)]


def _remove(*paths: Path) -> None:
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except OSError as err:
            raise file_error(err, path, "remove") from err


def _pixels(label: np.ndarray, num_classes: int) -> np.ndarray:
    return np.bincount(label.ravel(), minlength=256)[:num_classes]


def _record(path: Path) -> Mapping[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}
