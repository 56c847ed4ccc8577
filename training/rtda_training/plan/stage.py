"""One stage of a plan: what is trained, for how long, and which components fill its slots."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from rtda_deploy.errors import ConfigError
from rtda_deploy.files import check_file_name
from rtda_training.adapt.slots import SLOTS, Component, choice, component_key, components, number
from rtda_training.toml_file import known_hint

__all__ = ["OptimizerConfig", "StageConfig"]

_NONE = "none"


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """The network's optimizer; the rate falls as ``(1 - step / steps) ** power`` after a linear warm-up."""

    kind: str = choice("sgd", "adamw")
    learning_rate: float = 2.5e-4
    head_factor: float = 1.0  # rate of everything that is not the backbone, times this (10 in DeepLab's recipes)
    weight_decay: float = 5e-4
    momentum: float = 0.9
    warmup_steps: int = 0
    power: float = 0.9


@dataclasses.dataclass(frozen=True)
class StageConfig:
    """One training of a network.

    Attributes:
        name: What the stage is called in logs and file names.
        kind: What is trained: the network (``segmentation``), or a ``translation`` of source pictures into target ones.
        steps: Optimizer steps.
        start: Network to start from: ``previous`` (the last stage's), ``scratch`` (as the plan starts), or a stage's
            name.
        labelled: Which domain's labels are learned from; ``target`` is the oracle.
        sampler: Which source picture comes next.
        style: What is done to source pictures.
        labeler: Who labels target pictures.
        mixer: How both domains are mixed into one picture.
        objectives: Terms of the loss.
        batch_norm: ``train``; ``fixed`` leaves statistics and affine parameters alone, as the DeepLab papers do;
            ``sync`` shares the statistics of a batch among GPUs.
        bn_statistics: Whose batch-norm statistics the finished network carries: those of training (``running``), an
            average over ``target`` pictures, or both ``mixed``.
        bn_share: Of ``mixed``: the share of the target's, the rest is training's.
        optimizer: The network's optimizer.
        settings: Settings of the components in use, by their names.
    """

    name: str = "train"
    kind: str = "segmentation"
    steps: int = 3000
    start: str = "previous"
    labelled: str = choice("source", "target")
    sampler: str = "uniform"
    style: str = _NONE
    labeler: str = _NONE
    mixer: str = _NONE
    objectives: tuple[str, ...] = ("supervised",)
    batch_norm: str = choice("train", "fixed", "sync")
    bn_statistics: str = choice("running", "target", "mixed")
    bn_share: float = number(0.5, 0.0, 1.0)
    optimizer: OptimizerConfig = OptimizerConfig()
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ConfigError(f"steps must be positive, got {self.steps}", hint="such as --set steps=3000")
        check_file_name(self.name, "a stage's name")
        if self.name in components():
            raise ConfigError(f"a stage cannot be called {self.name!r}: a component is", hint="choose another name")
        used = self.used()
        object.__setattr__(
            self, "settings", {key: self.settings.get(key, found.settings()) for key, found in used.items()}
        )
        self._check_slots(used)

    def _check_slots(self, used: Mapping[str, type[Component]]) -> None:
        """Refuse a component whose slot lacks what it needs, and a slot that nothing uses."""
        filled = {found.slot for found in used.values()}
        for key, found in used.items():
            for slot in found.requires:
                if slot not in filled:
                    known = ", ".join(components(slot))
                    raise ConfigError(
                        f"stage {self.name!r}: {found.slot} {key!r} needs a {slot}, and {slot} is {_NONE!r}",
                        hint=f"set {slot} to one of: {known}; or take {key!r} out",
                    )
        wanted = {slot for found in used.values() for slot in found.requires}
        for slot in ("labeler", "mixer"):
            if slot in filled and slot not in wanted:
                users = [key for key, found in components().items() if slot in found.requires]
                raise ConfigError(
                    f"stage {self.name!r}: {slot} {getattr(self, slot)!r} is set, and nothing uses it",
                    hint=f"add one of these to objectives: {', '.join(users)}; or set {slot} to {_NONE!r}",
                )

    def names_in(self, slot: str) -> tuple[str, ...]:
        """Names of the components in one slot."""
        value = getattr(self, slot)
        names = value if isinstance(value, tuple) else (value,)
        if slot == "objectives" and self.kind != "segmentation":
            return ()
        return tuple(component_key(slot, name) for name in names if name not in (_NONE, "uniform"))

    def used(self) -> dict[str, type[Component]]:
        """The components in use by name.

        Raises:
            ConfigError: If a name is unknown.
        """
        found = {}
        for slot in SLOTS:
            known = components(slot)
            for name in self.names_in(slot):
                if name not in known:
                    extra = {"sampler": ["uniform"], "kind": [], "objectives": []}.get(slot, [_NONE])
                    raise ConfigError(
                        f"stage {self.name!r}: {slot.removesuffix('s')} {name!r} is unknown",
                        hint=known_hint(name, [*extra, *known]),
                    )
                found[name] = known[name]
        return found

    @property
    def stages_used(self) -> tuple[tuple[str, str], ...]:
        """Earlier stages that this one needs, each with the kind it must be of."""
        start = () if self.start in ("previous", "scratch") else ((self.start, "segmentation"),)
        parts = (
            (name, "translation" if key == "translator" else "segmentation")
            for key, found in self.used().items()
            for name in found.stages_used(self.settings[key])
        )
        return (*start, *parts)

    @property
    def needing_source(self) -> tuple[str, ...]:
        """What of the stage works on labelled source pictures: its kind, or names of components."""
        return tuple(key for key, found in self.used().items() if found.needs_source(self.settings[key]))

    @property
    def uses_target(self) -> bool:
        """Whether unlabelled target pictures are needed."""
        return self.bn_statistics != "running" or self.trains_on_target

    @property
    def trains_on_target_labels(self) -> bool:
        """Whether each step needs target frames that people labelled."""
        return any(found.needs_target_labels for found in self.used().values())

    @property
    def trains_on_target(self) -> bool:
        """Whether each step needs a batch of them."""
        return any(found.needs_target for found in self.used().values())
