"""Labels of another network: a larger one that is adapted already, or a file that another program runs."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from rtda_deploy.errors import CheckpointError, ConfigError, DataError, EngineError, FileAccessError, TrainingError
from rtda_deploy.files import readable_file, sha256_file, write_text
from rtda_deploy.model_files import is_checkpoint_name
from rtda_training.adapt.context import StageContext
from rtda_training.adapt.labelers.label_dump import label_paths
from rtda_training.adapt.labelers.prepared import WrittenLabels
from rtda_training.adapt.labelers.shares import shares_text
from rtda_training.adapt.slots import component
from rtda_training.data.class_map import class_map, describe_map
from rtda_training.data.index import count_pixels, in_order
from rtda_training.data.labels.files import read_mask, write_png
from rtda_training.data.pseudo_set import RECORD
from rtda_training.judge import Candidate
from rtda_training.labels import IGNORE_INDEX, ClassList
from rtda_training.readers import UnlabelledSet

__all__ = ["NetworkConfig", "NetworkLabeler"]

_BEGUN = "teacher.json"  # whose labels are being written
_FINER = 2  # masks are at most this many times the network's size: augmentation looks closer, to 1.5 mostly
_MAP = "network-labeler.map"


@dataclasses.dataclass(frozen=True)
class NetworkConfig:
    """Which network labels.

    Attributes:
        checkpoint: Its ``.pth``; ``rtda-deploy train`` takes an ``.onnx`` or an engine too.
        sha256: Of that file, written by the run that begins with it: a run is not gone on with by another teacher.
        map: ``its class=ours`` texts, ``its class=ignore`` for what has no partner; the others go by name.
    """

    checkpoint: str = ""
    sha256: str = ""
    map: tuple[str, ...] = ()


@component("labeler", "network-labeler", NetworkConfig)
class NetworkLabeler(WrittenLabels):
    """Every target picture is labelled once, before the first step, as that network sees it when it is deployed.

    It gets the picture as it is stored, at its own input size, channel order, mean and std, whatever the trained
    network's are. Its classes are joined by name. Labels are hard and weigh 1; there is no threshold. They are kept as
    ``labels/<place>.png`` in the stage's folder, and a killed run goes on where it was.

    Source: Chen et al., DDB (NeurIPS 2022), section 3.3: a student of hard labels, each of weight 1.
    """

    def __init__(self, config: NetworkConfig, stage: StageContext) -> None:
        _check(config)
        self._config = config
        self._stage = stage

    @classmethod
    def resolved(cls, config: NetworkConfig) -> NetworkConfig:
        path = Path(config.checkpoint).expanduser()
        if config.sha256 or not config.checkpoint or not path.is_file():
            return config
        return dataclasses.replace(config, sha256=sha256_file(path))

    @classmethod
    def preflight(cls, config: NetworkConfig, classes: ClassList) -> None:
        _check(config)
        if is_checkpoint_name(config.checkpoint):
            from rtda_training.checkpoint import read_checkpoint

            spec = read_checkpoint(Path(config.checkpoint).expanduser()).spec
            class_map(_listed(spec.class_names), classes, config.map, config.checkpoint, _MAP)

    @classmethod
    def files_read(cls, config: NetworkConfig) -> tuple[Path, ...]:
        return (Path(config.checkpoint).expanduser(),) if config.checkpoint else ()

    # before the first step

    def _write(self, target: UnlabelledSet) -> None:
        """Label what is not labelled yet, and tell how much each class got."""
        folder, paths = self._stage.folder, label_paths(self._stage.folder, len(target))
        asked = self._fingerprint(target)
        record = _json(folder / RECORD)
        if record.get("fingerprint") != asked or not all(path.is_file() for path in paths):
            if _json(folder / _BEGUN).get("fingerprint") != asked:
                _remove(folder / RECORD, folder / _BEGUN, *(folder / "labels").glob("*.png"))
                write_text(folder / _BEGUN, json.dumps({"fingerprint": asked}) + "\n")
            record = self._labelled(target, paths, asked)
            write_text(folder / RECORD, json.dumps(record, indent=1) + "\n")
        self._stage.tell(str(record["summary"]))

    def _fingerprint(self, target: UnlabelledSet) -> str:
        """Changes when anything changes that the labels depend on."""
        keys = [target.key(index) for index in range(len(target))]
        config, names = self._config, self._stage.classes.names
        values = [config.sha256, config.map, names, self._stage.size_hw, str(target.address), keys]
        return hashlib.sha256(json.dumps(values).encode()).hexdigest()

    def _labelled(self, target: UnlabelledSet, paths: list[Path], fingerprint: str) -> dict[str, Any]:
        stage, names = self._stage, self._stage.classes.names
        pictures = stage.as_stored(target)
        counts, unreadable = np.zeros(len(names) + 1, np.int64), []
        missing = [place for place, path in enumerate(paths) if not path.is_file()]
        for path in filter(Path.is_file, paths):  # of a run that was killed
            counts += count_pixels(read_mask(path), len(names))
        with self._teacher() as teacher:
            theirs = _listed(teacher.class_names)
            table = class_map(theirs, stage.classes, self._config.map, teacher.name, _MAP)
            stage.tell(f"teacher {teacher.name}: {describe_map(theirs, stage.classes, table)}")
            frames = in_order(lambda index: _frame(pictures, missing[index]), len(missing))
            for place, frame in zip(missing, frames, strict=True):
                if isinstance(frame, np.ndarray):
                    label = self._label_of(teacher, table, frame, target.name(place))
                else:
                    unreadable.append(target.key(place))
                    stage.tell(f"skipped {frame.message}")
                    label = np.full(stage.size_hw, IGNORE_INDEX, np.uint8)
                write_png(paths[place], label)
                counts += count_pixels(label, len(names))
        return {
            "summary": f"labels  by {self._config.checkpoint}: {shares_text(counts, names)}",
            "fingerprint": fingerprint,
            "settings": dataclasses.asdict(self._config),
            "share": float(counts[:-1].sum() / max(1, counts.sum())),
            "pixels": dict(zip(names, counts[:-1].tolist(), strict=True)),
            "unreadable": unreadable,
            "target": str(target.address),
            "pictures": [target.key(index) for index in range(len(target))],
        }

    @contextlib.contextmanager
    def _teacher(self) -> Iterator[Candidate]:
        stage, path = self._stage, Path(self._config.checkpoint).expanduser()
        if is_checkpoint_name(path):
            from rtda_training.loop.choosing import candidate_of, from_file  # they import stages, which import this

            yield candidate_of(from_file(path.name, path), stage.fabric.device)
        elif stage.open_model is None:
            raise ConfigError(
                f"{path} is no checkpoint, and training runs no other file",
                hint="rtda-deploy train opens it; in Python, give train(open_model=...), or the .pth it was made of",
            )
        else:
            with stage.open_model(path) as teacher:
                yield teacher

    def _label_of(self, teacher: Candidate, table: np.ndarray, frame: np.ndarray, name: str) -> np.ndarray:
        """uint8 of the network's classes, at the frame's size or as fine as augmentation can make use of.

        Raises:
            TrainingError: If the teacher gives NaN or infinity for it.
        """
        assert teacher.mask is not None
        height, width = (_FINER * side for side in self._stage.size_hw)
        try:
            mask = teacher.mask(frame, (min(frame.shape[0], height), min(frame.shape[1], width)))
        except EngineError as err:
            raise TrainingError(f"the teacher cannot label {name}: {err.message}", hint=err.hint) from err
        return np.asarray(table[mask])


def _check(config: NetworkConfig) -> None:
    """Refuse a teacher that is not there, or not the one that the run began with."""
    if not config.checkpoint:
        raise ConfigError(
            "the network labeler has no network", hint="--set network-labeler.checkpoint=runs/adapted/last.pth"
        )
    path = readable_file(Path(config.checkpoint).expanduser(), what="teacher")
    if config.sha256 and sha256_file(path) != config.sha256:
        raise CheckpointError(
            f"{path} is not the file that this run began with: it was written again since",
            hint="put the old file back; or begin a run with the new one, in another --out,"
            " with --set 'network-labeler.sha256=\"\"' where its settings come from config.toml",
        )


def _listed(names: tuple[str, ...]) -> ClassList:
    """A class list of names; nobody looks at its colours."""
    return ClassList(names, ((0, 0, 0),) * len(names))


def _frame(pictures: UnlabelledSet, place: int) -> np.ndarray | DataError | FileAccessError:
    try:
        return pictures.frame(place)
    except (DataError, FileAccessError) as err:
        return err


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _remove(*paths: Path) -> None:
    for path in paths:
        path.unlink(missing_ok=True)
