"""Where a model comes from, step by step: what trained, adapted and exported it, from which file, on which footage.

It stands in the provenance of a checkpoint and of an ``.onnx`` as ``ancestry``, the oldest step first. A step has

- ``made``: ``trained``, ``adapted``, ``batch norms mixed``, ``exported``, or ``elsewhere``;
- ``parent_sha256``: of the file that it began with, which the step before made; a first step has none;
- ``recipe``, ``source`` and ``footage``: what it was made by and of, where there is such;
- ``card``: of what it made, once something was made of that: pictures, their data, and the share of right pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rtda_deploy.card import card_from_json

__all__ = ["ADAPTED", "EXPORTED", "MIXED", "TRAINED", "descended"]

TRAINED, ADAPTED, MIXED, EXPORTED = "trained", "adapted", "batch norms mixed", "exported"
KEY = "ancestry"


def descended(
    made: str, parent: Mapping[str, Any] | None = None, *, parent_sha256: str = "", card: str = "", **of: str
) -> list[dict[str, Any]]:
    """The steps of a parent, and one more.

    Args:
        made: What the new step does.
        parent: The parent's provenance; None: there is no parent.
        parent_sha256: Of the parent's file.
        card: Of the parent, as it is stored; empty: it has none.
        of: ``recipe``, ``source``, ``footage``; what is empty is left out.
    """
    steps = [] if parent is None else _steps(parent)
    facts = card_from_json(card) if card else None
    if steps and facts is not None:
        about = {"data": facts.data, "pictures": facts.pictures, "right": round(facts.right, 4)}
        steps[-1] = {**steps[-1], "card": about}
    new = {"made": made, "parent_sha256": parent_sha256, **of}
    return [*steps, {key: value for key, value in new.items() if value}]


def _steps(provenance: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Those of a file; of one that was written before there were any, or by others, what else it says."""
    steps = provenance.get(KEY)
    if isinstance(steps, list) and all(isinstance(step, dict) for step in steps):
        return [dict(step) for step in steps]
    domains = provenance.get("domains", {})
    known = {
        "made": TRAINED if provenance.get("recipe") else "elsewhere",
        "recipe": provenance.get("recipe", provenance.get("lineage", "")),
        "source": domains.get("source", "") if isinstance(domains, dict) else "",
        "footage": domains.get("target", "") if isinstance(domains, dict) else "",
        "parent_sha256": provenance.get("parent_sha256", ""),
    }
    return [{key: str(value) for key, value in known.items() if value}]
