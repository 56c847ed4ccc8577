"""``run --collect``: what was typed, as the address of its sink, and the second engine that looks again."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, Mapping, Optional, Sequence
from urllib.parse import quote

from rtda_deploy.errors import ConfigError

if TYPE_CHECKING:
    from rtda_runtime.pool import AnySegmenter

__all__ = ["asked_names", "collect_address", "collect_text", "says_confidence", "second_engine"]


def collect_address(
    folder: Optional[Path], when: Optional[str], mask: Optional[str], limits: Sequence[str], *, region: bool
) -> Optional[str]:
    """What ``--collect`` and its options mean together; None: nothing is collected.

    Args:
        folder: Of ``--collect``.
        when: Of ``--collect-when``.
        mask: Of ``--collect-mask``.
        limits: Of ``--collect-limit``: ``KEY=VALUE``, several with commas between.
        region: Whether a part of the picture is segmented; the mirror image of it is another part.

    Raises:
        ConfigError: If one is given without ``--collect``, or makes no sense.
    """
    typed = {"--collect-when": when, "--collect-mask": mask, "--collect-limit": limits or None}
    for option, value in typed.items():
        if folder is None and value is not None:
            raise ConfigError(f"{option} was given without --collect", hint="--collect DIR names the folder")
    if folder is None:
        return None
    if re.search(r"\?[a-z]+=", str(folder)):
        raise ConfigError(
            f"--collect {folder} is the name of a folder with limits behind it",
            hint="name the folder; limits are typed as --collect-limit KEY=VALUE",
        )
    from rtda_runtime.shift.collecting.limits import CollectOptions
    from rtda_runtime.shift.collecting.words import split_words

    values = _limits(limits)
    CollectOptions.typed(values)
    if region:
        values["flip"] = "off"
    if when is not None:
        split_words(when)
        values["when"] = when if when.strip() else " "
    if mask is not None:
        values["blur"] = mask
    query = "&".join(f"{key}={quote(value, safe='')}" for key, value in values.items())
    return f"{folder}?{query}" if query else str(folder)


def asked_names(when: Optional[str]) -> Sequence[str]:
    """The names in an expression, before the classes of the network are known."""
    if not when:
        return ()
    from rtda_runtime.shift.collecting.words import split_words

    return [word.text for word in split_words(when) if word.kind == "name"]


def collect_text(sink: Mapping[str, Any]) -> str:
    """The remark of the summary's table; empty for other sinks."""
    if "not_worth" not in sink:
        return ""
    stopped = f"stopped: {sink['stopped']}; " if sink["stopped"] else ""
    size = f"{sink['frames']} frames, {sink['bytes'] / 1e6:.1f} MB in {sink['folder']}"
    return f"{stopped}kept {sink['kept']}, replaced {sink['replaced']}; {size}"


def says_confidence(model: Path) -> bool:
    """Whether the network gives its mean confidence by itself: it was exported with ``--monitor``."""
    from rtda_deploy.engine_file import read_sidecar, sidecar_path
    from rtda_deploy.errors import RtdaError
    from rtda_deploy.familiar import MONITOR
    from rtda_deploy.onnx_file import onnx_spec

    try:
        spec = read_sidecar(model).spec if sidecar_path(model).is_file() else onnx_spec(model)
    except RtdaError:  # opening it says what is wrong
        return False
    return MONITOR in spec.provenance.get("export", {})


def second_engine(path: Path, provider: str, spec: Any, network: Mapping[str, Any]) -> AnySegmenter:
    """The network once more, on one thread, with its confidence where it says how sure it is."""
    from rtda_runtime import Segmenter

    how = {**network, "confidence": True}
    try:
        return Segmenter.open(path, provider, spec, 1, **how)
    except ConfigError:  # finished masks without a confidence
        return Segmenter.open(path, provider, spec, 1, **{**how, "confidence": False})


def _limits(texts: Sequence[str]) -> Dict[str, str]:
    found: Dict[str, str] = {}
    for part in (part.strip() for text in texts for part in text.split(",")):
        key, equals, value = part.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"--collect-limit {part!r} is not KEY=VALUE", hint="--collect-limit disk=5GB,minute=6")
        if key.strip() in found:
            raise ConfigError(f"--collect-limit {key.strip()} is given twice", hint="give each limit once")
        found[key.strip()] = value.strip()
    return found
