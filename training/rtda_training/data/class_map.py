"""Classes of somebody else's labels, and which of ours each is: by what was typed, else by name."""

from __future__ import annotations

import json
from typing import Dict, List, Sequence, Tuple

import numpy as np

from rtda_deploy.errors import ConfigError
from rtda_training.labels import IGNORE_INDEX, ClassList, known_partners

__all__ = ["class_map", "describe_map"]

_IGNORE = ("", "ignore")  # what a class is mapped to that has no partner


def class_map(have: ClassList, want: ClassList, typed: Sequence[str], whose: str, setting: str) -> np.ndarray:
    """A table from class ids of ``have`` to those of ``want``.

    Args:
        have: The teacher's classes.
        want: Ours.
        typed: ``teacher class=ours`` texts, ``teacher class=ignore`` for one without a partner; they go before names.
        whose: Whose classes they are, for messages.
        setting: The setting that holds ``typed``.

    Returns:
        uint8 (256,): ``table[id]``; 255 for a class without a partner and for every id outside ``have``.

    Raises:
        ConfigError: If a typed name is no class of its list, or no class of ``have`` is one of ``want``.
    """
    table = known_partners(have, want)
    for theirs, ours in _pairs(typed, setting):
        for name, classes, side in ((theirs, have, whose), (ours, want, "the network")):
            if name not in classes.names and not (classes is want and name in _IGNORE):
                raise ConfigError(
                    f"{setting}: {name!r} is no class of {side}", hint=f"its classes: {', '.join(classes.names)}"
                )
        table[have.names.index(theirs)] = IGNORE_INDEX if ours in _IGNORE else want.names.index(ours)
    if (table == IGNORE_INDEX).all():
        example = json.dumps([f"{have.names[0]}={want.names[0]}"])
        raise ConfigError(
            f"no class of {whose} is one of the network's: {', '.join(have.names)} | {', '.join(want.names)}",
            hint=f"say which is which: --set '{setting}={example}'",
        )
    return table


def describe_map(have: ClassList, want: ClassList, table: np.ndarray) -> str:
    """One line for people: ``19 -> 7 classes: road + sidewalk -> ground; ignored: rider; never taught: pole``."""
    groups: Dict[str, List[str]] = {}
    ignored = []
    for index, name in enumerate(have.names):
        if table[index] == IGNORE_INDEX:
            ignored.append(name)
        else:
            groups.setdefault(want.names[int(table[index])], []).append(name)
    told = [f"{' + '.join(names)} -> {ours}" for ours, names in groups.items() if names != [ours]]
    never = [name for name in want.names if name not in groups]
    text = f"{have.num_classes} -> {want.num_classes} classes" + (f": {', '.join(told)}" if told else " by name")
    text += f"; ignored: {', '.join(ignored)}" if ignored else ""
    return text + (f"; never taught: {', '.join(never)}" if never else "")


def _pairs(typed: Sequence[str], setting: str) -> List[Tuple[str, str]]:
    found: Dict[str, str] = {}
    for text in typed:
        theirs, equals, ours = (part.strip() for part in text.partition("="))
        if not equals or not theirs:
            raise ConfigError(f"{setting}: {text!r} is not teacher class=ours", hint='such as "person=pedestrian"')
        if found.setdefault(theirs, ours) != ours:
            raise ConfigError(f"{setting}: {theirs!r} is given twice", hint="leave one of the two")
    return list(found.items())
