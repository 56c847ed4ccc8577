"""What a plan starts from: the network with its first weights, the spec that its checkpoints carry, and the data sets.

The sets are opened, looked at, cached, and checked against each other before a training starts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import torch

from rtda_deploy import __version__
from rtda_deploy.errors import CheckpointError, ConfigError, DataError
from rtda_deploy.files import sha256_file
from rtda_deploy.spec import ModelSpec
from rtda_training.ancestry import ADAPTED, TRAINED, descended
from rtda_training.checkpoint import read_checkpoint
from rtda_training.data.first_look import copied_pictures, first_look, shared_pictures
from rtda_training.data.index import index_of
from rtda_training.data.pixel_cache import cached, cached_size
from rtda_training.judge.answers import LEAST_FRAMES
from rtda_training.judge.check import refuse_other_classes, refuse_unfit, repeated
from rtda_training.judge.own_masks import uncorrected
from rtda_training.labels import ClassList, class_list
from rtda_training.loop.events import Tell, TrainEvent
from rtda_training.models import OUTPUT_STRIDE, SegmentationNetwork, build_network, load_backbone_weights, network_class
from rtda_training.models.state_dicts import difference, refuse_broken_numbers
from rtda_training.plan import PlanConfig
from rtda_training.readers import LabelledSet, Progress, UnlabelledSet, open_labelled, open_unlabelled

__all__ = ["PlanSets", "check_size", "start_network", "start_spec"]


def check_size(plan: PlanConfig) -> None:
    """Refuse an input size that the network does not take.

    Raises:
        ConfigError: Naming the nearest that works.
    """
    height, width = plan.size_hw
    multiple = network_class(plan.network).SIZE_MULTIPLE
    if height % multiple or width % multiple:
        near = [max(1, round(side / multiple)) * multiple for side in (width, height)]
        raise ConfigError(
            f"size {plan.size} is no multiple of {multiple} each way",
            hint=f"nearest that works: {near[0]}x{near[1]}",
        )


def start_network(plan: PlanConfig, classes: ClassList, tell: Tell | None = None) -> SegmentationNetwork:
    """A new network of the plan on the CPU; random numbers are torch's global ones.

    Args:
        plan: Names network, ImageNet file and checkpoint.
        classes: What it tells apart.
        tell: Told what was loaded.

    Raises:
        CheckpointError: If ``init`` is of other classes or another network, or a file does not fit.
    """
    model = build_network(plan.network, plan.backbone, plan.variant, classes.num_classes)
    if plan.backbone_weights:
        report = load_backbone_weights(model, plan.backbone_weights, stages=plan.backbone_stages)
        if tell is not None:
            tell(TrainEvent("note", f"backbone: {plan.backbone_weights}: {report.text}"))
    if plan.init:
        _load_init(model, plan, classes)
    return model


def _load_init(model: SegmentationNetwork, plan: PlanConfig, classes: ClassList) -> None:
    start = read_checkpoint(plan.init)
    if start.spec.class_names != classes.names:
        raise CheckpointError(
            f"{plan.init} was trained on other classes than {plan.source or 'the network'} has",
            hint="start from a checkpoint of the same classes, or leave init away",
        )
    problem = difference(model.state_dict(), start.weights)
    if problem:
        raise CheckpointError(
            f"{plan.init} is of another network than {_words(model.architecture)}: {problem}",
            why=f"it is a {_words(start.spec.provenance.get('architecture'))}",
            hint="set network, backbone and variant to what rtda-deploy inspect shows",
        )
    refuse_broken_numbers(start.weights, plan.init)
    model.load_state_dict(dict(start.weights))


def _words(architecture: object) -> str:
    return " ".join(map(str, architecture.values())) if isinstance(architecture, Mapping) else "network without a name"


def start_spec(plan: PlanConfig, classes: ClassList, model: SegmentationNetwork) -> ModelSpec:
    """The contract of the plan's network before its first step.

    In its provenance ``parent_sha256`` is the checkpoint that it starts from, ``ancestry`` all that led to it, and
    ``batch_norm`` what that checkpoint says of its batch norms: absent where it says nothing, ``fixed`` without one,
    since no stage has trained any.
    """
    provenance: dict[str, Any] = {
        "architecture": model.architecture,
        "recipe": plan.name,
        "domains": {"source": plan.source, "target": plan.target},
        "versions": {"rtda-deploy": __version__, "torch": torch.__version__},
        "seed": plan.seed,
    }
    begun, of = "fixed", {"recipe": plan.name, "source": plan.source, "footage": plan.target}
    if plan.init:
        sha256, parent = sha256_file(plan.init), read_checkpoint(plan.init)
        provenance["parent_sha256"] = sha256
        begun = parent.spec.provenance.get("batch_norm", "")
        made = TRAINED if plan.source else ADAPTED
        ancestry = descended(made, parent.spec.provenance, parent_sha256=sha256, card=parent.card, **of)
    else:
        ancestry = descended(TRAINED, None, **of)
    provenance["ancestry"] = ancestry
    if begun:
        provenance["batch_norm"] = begun
    return ModelSpec(
        size_hw=plan.size_hw,
        class_names=classes.names,
        palette=classes.palette,
        channel_order=plan.input.channel_order,
        pixel_scale=plan.input.pixel_scale,
        mean=plan.input.mean,
        std=plan.input.std,
        interpolation=plan.input.interpolation,
        output_stride=OUTPUT_STRIDE,
        provenance=provenance,
    )


_SHOWN = 6  # classes in a message
_Set = TypeVar("_Set", bound=UnlabelledSet)


def _classes_of(checkpoint: str) -> ClassList:
    spec = read_checkpoint(checkpoint).spec
    return ClassList(spec.class_names, spec.palette)


def _difference(names: Sequence[str], wanted: Sequence[str]) -> str:
    """In which classes a set differs from those that the network has."""
    lacks = [name for name in wanted if name not in names]
    has = [name for name in names if name not in wanted]
    parts = [f"{word} {_some(found)}" for word, found in (("without", lacks), ("with", has)) if found]
    return "; ".join(parts) or f"the same in another order, {_some(names)}"


def _joining(data: LabelledSet, wanted: Sequence[str]) -> str:
    """What to write so that a set has the network's classes."""
    lists = "--set classes=camvid (or cityscapes) joins both to that list"
    if data.meaning is None:
        return lists
    names = json.dumps(list(wanted), ensure_ascii=False)
    own = data.classes.names
    if data.meaning.assumed or not set(own) <= set(wanted):
        ids = '{"0": "…", "1": "…"}'
        return f'say in {data.meaning.file} which class each id is: {{"names": {names}, "ids": {ids}}}   (or {lists})'
    if data.meaning.raw:
        ids = json.dumps({str(number): name for number, name in enumerate(own)}, ensure_ascii=False)
        return f'write into {data.meaning.file}: {{"names": {names}, "ids": {ids}}}'
    return f'write into {data.meaning.file}, beside what is there: "names": {names}'


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + f" and {len(names) - _SHOWN} more" * (len(names) > _SHOWN)


class PlanSets:
    """Opens the sets of a plan.

    Args:
        plan: Names them.
        tell: Told of progress and of what is left out or doubtful.

    Attributes:
        source: The labelled domain; None where the plan has none.
        classes: What the network tells apart: the source's, or those of the checkpoint it starts from.
        target: The unlabelled domain; None where the plan has none.
        labelled_target: A few labelled frames of it; None where the plan has none.
        val: What the network is validated on; None where the plan has no such set.
        check: A few labelled target frames that choose among networks; None where the plan has none.

    Raises:
        ConfigError: If an address makes no sense.
        DataError: If a set cannot be read, teaches nothing, or has other classes than the source.
    """

    def __init__(self, plan: PlanConfig, tell: Tell) -> None:
        self._plan = plan
        self._tell = tell
        self.source = self._labelled(plan.source) if plan.source else None
        self.classes = self.source.classes if self.source is not None else _classes_of(plan.init)
        self.target = self._unlabelled(plan.target) if plan.target else None
        self.labelled_target = self._few_labels(plan.labelled_target) if plan.labelled_target else None
        address = plan.validation
        self.val = self._same_classes(self._labelled(address, split="val")) if address else None
        self.check = self._judges(plan.check) if plan.check else None
        self._warn_of_own_pictures()

    @property
    def camera(self) -> UnlabelledSet:
        """Pictures such as the network will meet: of the target, else of the source."""
        found = self.target or self.source
        assert found is not None  # a plan without a source has a target
        return found

    def target_with_labels(self) -> LabelledSet:
        """The target domain for a stage that learns from its labels."""
        return self._same_classes(self._labelled(self._plan.target))

    def _few_labels(self, text: str) -> LabelledSet:
        """Labelled target frames; a few of them may lack classes, which is told."""
        found = self._same_classes(self._labelled(text, may_lack=True))
        pixels = index_of(found).pixels
        lacks = [name for name, count in zip(found.classes.names, pixels.sum(axis=0), strict=True) if not count]
        missing = f"; no pixel of {', '.join(lacks)}" if lacks else ""
        frames = f"{len(found)} frame{'s' * (len(found) != 1)}"
        self._tell(TrainEvent("note", f"labelled target: {frames} of {found.address}{missing}"))
        untold = [found.name(index) for index, counts in enumerate(pixels) if not counts.any()]
        if untold:
            text = (
                f"{len(untold)} of {frames} of {found.address} teach nothing, no pixel is labelled, first: {untold[0]}"
            )
            self._tell(TrainEvent("warning", text))
        return found

    def _judges(self, text: str) -> LabelledSet:
        """Labelled target frames that choose; some classes may be missing in them."""
        if self.target is not None and len(self.target) < LEAST_FRAMES:
            raise DataError(
                f"--check {text} would choose among networks for {self.target.address}, which has"
                f" {len(self.target)} pictures: too few to judge networks on",
                hint=f"at least {LEAST_FRAMES} are needed, and hundreds of different scenes are better",
            )
        found = open_labelled(text, split="val", classes=self.classes, progress=self._prepare(text))
        doubts = refuse_other_classes(found)
        refuse_unfit(found)
        for doubt in (*doubts, *uncorrected(found), *repeated(found)):
            self._tell(TrainEvent("warning", doubt))
        for what, learned in (("--source", self.source), ("--labelled-target", self.labelled_target)):
            if learned is not None and (shared_pictures([learned], found) or copied_pictures(learned, found)):
                raise DataError(
                    f"{text} shares frames with {what}: what was learned from cannot judge",
                    hint="label some more, or divide them: folder:DIR?list=FILE names some of a folder",
                )
        return found

    def _labelled(self, text: str, split: str = "train", may_lack: bool = False) -> LabelledSet:
        asked: dict[str, Any] = {"classes": class_list(self._plan.classes)} if self._plan.classes else {}
        if not self._plan.source:
            asked = {"classes": self.classes}
        found = open_labelled(text, split=split, progress=self._prepare(text), **asked)
        first_look(
            found,
            to_train=split == "train" and not may_lack,
            progress=self._prepare(f"{text} (first look)"),
            tell=lambda text: self._tell(TrainEvent("warning", text)),
        )
        self._say_of(found)
        return self._cached(found) if split == "train" else found

    def _unlabelled(self, text: str) -> UnlabelledSet:
        found = open_unlabelled(text, progress=self._prepare(text))
        self._say_of(found)
        return self._cached(found)

    def _cached(self, pictures: _Set) -> _Set:
        """The set with its pixels from the cache, if the plan says so."""
        plan = self._plan
        if not plan.cache:
            return pictures
        return cached(
            pictures,
            cached_size(plan.size_hw, plan.augment.scale_max),
            plan.input.interpolation,
            progress=self._prepare(f"{pictures.address} (cache)"),
            tell=lambda text: self._tell(TrainEvent("note", text)),
        )

    def _same_classes(self, other: LabelledSet) -> LabelledSet:
        if other.classes.names != self.classes.names:
            raise DataError(
                f"{other.address} has other classes than {self._plan.source or self._plan.init}:"
                f" {_difference(other.classes.names, self.classes.names)}",
                hint=_joining(other, self.classes.names),
            )
        return other

    def _say_of(self, pictures: UnlabelledSet) -> None:
        for text in pictures.notes:
            self._tell(TrainEvent("note", text))
        for why, paths in pictures.left_out().items():
            self._tell(TrainEvent("note", f"left out of {pictures.address}: {why}: {len(paths)}"))

    def _warn_of_own_pictures(self) -> None:
        if self.val is None:
            return
        labelled = {stage.labelled for stage in self._plan.stages}
        domains = {"source": self.source, "target": self.target}
        trained = [data for name, data in domains.items() if name in labelled and data]
        few = [self.labelled_target] if self.labelled_target else []
        own = shared_pictures([*trained, *few], self.val) or sum(copied_pictures(data, self.val) for data in few)
        if own:
            text = f"{own} of the {len(self.val)} pictures it validates on are trained on: name others with --val DATA"
            self._tell(TrainEvent("warning", text))

    def _prepare(self, text: str) -> Progress:
        return lambda done, total: self._tell(TrainEvent("prepare", text, done, total))
