"""The lineage of a model file, drawn for ``inspect``."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping

__all__ = ["drawn_lineage"]

_DIGITS = 12  # of a SHA-256


def drawn_lineage(ancestry: Any, sha256: str) -> List[str]:
    """A line for each step, the oldest first, each file by the first digits of its SHA-256; the last is this file.

    Args:
        ancestry: As ``rtda_training.ancestry`` writes it; anything else draws nothing.
        sha256: Of the file itself.
    """
    steps = [step for step in ancestry if isinstance(step, dict)] if isinstance(ancestry, list) else []
    made = [str(step.get("parent_sha256", "")) for step in steps[1:]] + [sha256]
    begins = str(steps[0].get("parent_sha256", "")) if steps else ""
    lines = [f"{begins[:_DIGITS]}  a file of others"] if begins else []
    for place, (step, digest) in enumerate(zip(steps, made)):
        arrow = "└─ " if place or begins else ""
        lines.append(f"{'   ' * max(0, place - (not begins))}{arrow}{digest[:_DIGITS]}  {_words(step)}")
    return lines


def _words(step: Mapping[str, Any]) -> str:
    told: Dict[str, str] = {"recipe": "by", "source": "of", "footage": "on"}
    words = [str(step.get("made", ""))] + [f"{word} {step[key]}" for key, word in told.items() if step.get(key)]
    card = step.get("card")
    if isinstance(card, dict):
        right = card.get("right")
        share = f", {100 * right:.1f} % right" if isinstance(right, (int, float)) else ""
        words.append(f"(card: {card.get('pictures')} pictures of {card.get('data')}{share})")
    return " ".join(words)
