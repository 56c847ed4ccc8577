"""Sizes of pictures as people type them: width x height."""

from __future__ import annotations

import re
from typing import Tuple

from rtda_deploy.errors import ConfigError

__all__ = ["parse_size"]


def parse_size(text: str) -> Tuple[int, int]:
    """``"1024x512"`` (width x height) as (512, 1024).

    Raises:
        ConfigError: If it is not of this form.
    """
    found = re.fullmatch(r"0*([1-9][0-9]{0,4})x0*([1-9][0-9]{0,4})", text.lower())
    if not found:
        shown = text if len(text) <= 40 else f"{text[:37]}..."
        raise ConfigError(f"size {shown!r} is not WIDTHxHEIGHT", hint="such as 1024x512")
    return int(found[2]), int(found[1])
