"""The slots of a training stage, and the components that fill them.

A method is a choice at a few slots: how source pictures are drawn (``sampler``), what is done to them (``style``), who
labels the target (``labeler``), how both are mixed (``mixer``), and which terms the loss has (``objectives``). A
component is a class in a file of its own below ``rtda_training.adapt``, named in recipes by what ``@component`` says;
a table of that name in a recipe holds its settings. Nothing else needs to know of it. What a stage trains (``kind``:
the network, or a translator of pictures) is a slot too; its components are in ``rtda_training.stages``.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import pkgutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from rtda_deploy.errors import ConfigError

if TYPE_CHECKING:
    from rtda_training.adapt.context import StageContext
    from rtda_training.labels import ClassList

__all__ = [
    "SLOTS",
    "Component",
    "NoSettings",
    "check_field",
    "choice",
    "component",
    "component_key",
    "components",
    "number",
]

SLOTS = ("kind", "sampler", "style", "labeler", "mixer", "objectives")
_REGISTRY: dict[str, type[Component]] = {}
_C = TypeVar("_C", bound="type[Component]")


@dataclasses.dataclass(frozen=True)
class NoSettings:
    """The settings of a component that has none."""


class Component:
    """Base of everything that fills a slot.

    Attributes:
        slot: Which slot it fills; set by ``@component``.
        key: Its name in recipes; set by ``@component``.
        settings: The class of its settings; set by ``@component``.
        needs_target: Whether each step needs a batch of target pictures.
        needs_target_labels: Whether each step needs some of the target frames that people labelled.
        requires: Other slots that must be filled for it to work.
    """

    slot: ClassVar[str] = ""
    key: ClassVar[str] = ""
    settings: ClassVar[type] = NoSettings
    needs_target: ClassVar[bool] = False
    needs_target_labels: ClassVar[bool] = False
    requires: ClassVar[tuple[str, ...]] = ()

    def __init__(self, config: Any, stage: StageContext) -> None:
        del config, stage

    @classmethod
    def needs_source(cls, config: Any) -> bool:
        """Whether it works on labelled source pictures; refused in a plan without a source."""
        del config
        return False

    @classmethod
    def stages_used(cls, config: Any) -> tuple[str, ...]:
        """Names of earlier stages whose networks it needs."""
        del config
        return ()

    @classmethod
    def resolved(cls, config: Any) -> Any:
        """Its settings with what a run must remember of the files they name, such as a digest; called once a plan."""
        return config

    @classmethod
    def preflight(cls, config: Any, classes: ClassList) -> None:
        """Refuse, before the first step of any stage, what can be known not to work.

        Args:
            config: Its settings.
            classes: What the network tells apart.

        Raises:
            RtdaError: Saying why.
        """

    @classmethod
    def files_read(cls, config: Any) -> tuple[Path, ...]:
        """Files and folders that it reads, which nothing may be written over."""
        del config
        return ()

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on bit by bit; plain tensors and containers."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state_dict()``."""
        del state


def component(slot: str, key: str, settings: type = NoSettings) -> Callable[[_C], _C]:
    """Register a class as what ``slot = "key"`` means in a recipe, with ``[key]`` as its table of settings."""

    def register(cls: _C) -> _C:
        known = _REGISTRY.get(key)
        if slot not in SLOTS or (known is not None and known.__qualname__ != cls.__qualname__):
            raise RuntimeError(f"component {slot}.{key} cannot be registered: no such slot, or the name is taken")
        cls.slot, cls.key, cls.settings = slot, key, settings
        _REGISTRY[key] = cls
        return cls

    return register


@functools.lru_cache(maxsize=None)
def _discover() -> None:
    """Import every module below ``rtda_training.adapt`` and ``.stages``, so that each can register."""
    for name in ("rtda_training.adapt", "rtda_training.stages"):
        for module in pkgutil.walk_packages(importlib.import_module(name).__path__, name + "."):
            importlib.import_module(module.name)


def components(slot: str = "") -> dict[str, type[Component]]:
    """Components by their names in recipes; all, or those of one slot."""
    _discover()
    return {key: found for key, found in sorted(_REGISTRY.items()) if slot in ("", found.slot)}


def component_key(slot: str, name: str) -> str:
    """The key of what a recipe writes into a slot.

    ``network`` is a setting of its own, so that the labeler of that name is ``network-labeler``: whose settings stand
    in ``[network-labeler]``, and which ``labeler = "network"`` means.
    """
    known = components(slot)
    full = f"{name}-{slot}"
    return full if name not in known and full in known else name


def choice(*known: str) -> Any:
    """A settings field that takes one of these names; the first is the default."""
    return dataclasses.field(default=known[0], metadata={"choices": known})


def number(default: float, low: float, high: float) -> Any:
    """A settings field that takes a number in ``low..high``."""
    return dataclasses.field(default=default, metadata={"range": (low, high)})


def check_field(where: str, field: dataclasses.Field[Any], value: Any) -> None:
    """Refuse a value outside what ``choice`` or ``number`` allow.

    Raises:
        ConfigError: Naming the setting and what is allowed.
    """
    known = field.metadata.get("choices")
    if known and value not in known:
        raise ConfigError(f"{where} {value!r} is unknown", hint=f"known: {', '.join(known)}")
    limits = field.metadata.get("range")
    if limits and not limits[0] <= value <= limits[1]:
        raise ConfigError(
            f"{where} must lie between {limits[0]:g} and {limits[1]:g}, got {value:g}",
            hint=f"such as {max(limits[0], min(limits[1], value)):g}",
        )
