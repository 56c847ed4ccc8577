"""Shares as people type them."""

from __future__ import annotations

__all__ = ["share"]


def share(text: str, option: str) -> float:
    """``5%`` or ``0.05``.

    Args:
        text: As typed.
        option: Where, for the error.

    Raises:
        ConfigError: If it is neither, or more than all.
    """
    from rtda_deploy.errors import ConfigError

    try:
        value = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        value = -1.0
    if not 0.0 <= value <= 1.0:
        meant = f"{text}%" if 1.0 < value <= 100.0 and not text.endswith("%") else "5%"
        raise ConfigError(f"{option} {text} is no share", hint=f"such as {option} {meant}")
    return value
