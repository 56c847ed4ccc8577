"""Machines that decode or compute differently from the one that made the plan: refused, or accepted by name and noted.

The labels of a run are to depend on the footage, the model and the options, not on which machine took a unit. So each
worker compares its fingerprint with that in the plan when it opens the network. Two things may differ:

- ``decoder``: other pixels of the same file, because FFmpeg, PyAV, OpenCV or libjpeg is another one.
- ``engine``: another answer of the network to the same frame. On a CPU it has to be equal to the last bit; processors
  with other vector units round differently, and are refused unless that is accepted. GPUs round differently from run to
  run, so nothing is said of them below :data:`ROUNDING`. What is beyond it is no rounding, and is never accepted.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Dict, Mapping, Sequence

from rtda_deploy.border import json_values, parsing
from rtda_deploy.errors import ConfigError, DataError, DeviceError
from rtda_deploy.files import file_bytes, write_text
from rtda_runtime.fleet.fingerprint import NOT_DECODED, Fingerprint
from rtda_runtime.sources.footage.frame_names import plain_name

__all__ = ["MIXABLE", "ROUNDING", "accepted_differences", "check_mixable", "mixed_machines", "note_mixed"]

MIXABLE = ("decoder", "engine")
ROUNDING = 0.01  # of the pixels of the probe's mask; what is exported may change 0.5 % by FP16, and that is no rounding
_GPU_PROVIDERS = ("cuda", "tensorrt")
_NOTES = "machines"


def check_mixable(names: Sequence[str]) -> None:
    """Check what a user accepts.

    Raises:
        ConfigError: If it is none of :data:`MIXABLE`.
    """
    unknown = [name for name in names if name not in MIXABLE]
    if unknown:
        raise ConfigError(f"--mixed {unknown[0]} is unknown", hint=f"known: {', '.join(MIXABLE)}")


def accepted_differences(
    here: Fingerprint, plan: Fingerprint, accepted: Sequence[str], provider: str
) -> Dict[str, str]:
    """In what a machine differs from the one that made the plan, by the names of :data:`MIXABLE`, in words.

    Args:
        here: Of this machine.
        plan: Of the machine that made the plan.
        accepted: Of :data:`MIXABLE`.
        provider: What the network runs on here.

    Raises:
        DeviceError: If it differs in something that is not accepted, or in more than can be.
    """
    found: Dict[str, str] = {}
    probes = [name for name, digest in plan.pixels.items() if here.pixels.get(name) != digest]
    if probes:
        found["decoder"] = _decoded(here, probes)
    share = here.changed_pixels(plan)
    exact = provider not in _GPU_PROVIDERS
    if share > ROUNDING or (exact and (share or here.confidence != plan.confidence)):
        found["engine"] = _answered(share)
    for part, what in found.items():
        if part not in accepted or (part == "engine" and share > ROUNDING):
            before = "it did when it made the plan" if here.host == plan.host else f"{plan.host}, which made the plan"
            raise DeviceError(
                f"machine {here.host} would make other labels than {before}: {what}",
                why=_compared(here.versions_of(part), plan.versions_of(part)),
                hint=_fix(part, here, plan, share),
            )
    return found


def _compared(here: str, plan: str) -> str:
    return f"both have {here}" if here == plan else f"it has {here}; the plan's machine {plan}"


def _decoded(here: Fingerprint, probes: Sequence[str]) -> str:
    lacking = [name for name in probes if here.pixels.get(name) == NOT_DECODED]
    if lacking:
        return f"it cannot decode {', '.join(lacking)}"
    return f"it decodes other pixels from the same {', '.join(probes)}"


def _answered(share: float) -> str:
    if share:
        return f"the network gives {100 * share:.3g} % of the pixels of the same frame another class"
    return "the network gives the same frame other confidences"


def _fix(part: str, here: Fingerprint, plan: Fingerprint, share: float) -> str:
    if part == "engine" and share > ROUNDING:
        return "that is more than rounding: the same packages and the same kind of processor or GPU are needed"
    accept = f"accept that labels depend on the machine: --mixed {part}"
    packages = {package: plan.versions.get(name) for package, name in _PACKAGES[part].items()}
    # A package's version may go on after its library's: opencv-python-headless 4.10.0.84 holds OpenCV 4.10.0.
    wanted = [f"'{package}=={version}.*'" for package, version in packages.items() if version]
    same = all(here.versions.get(name) == plan.versions.get(name) for name in _PACKAGES[part].values())
    if same or not wanted:
        return f"leave this kind of processor out, or {accept}"
    return f"pip install {' '.join(wanted)}, or {accept}"


_PACKAGES = {
    "decoder": {"opencv-python-headless": "opencv", "av": "av"},
    "engine": {"opencv-python-headless": "opencv", "onnxruntime": "onnxruntime"},
}


def note_mixed(out: Path, here: Fingerprint, found: Mapping[str, str]) -> None:
    """Keep in the output folder that a machine takes part which differs, and in what.

    Raises:
        FileAccessError: If it cannot be written.
    """
    values = {"host": here.host, "differs": dict(found), "versions": dict(here.versions)}
    path = out / _NOTES / f"{plain_name(here.host)}.json"
    write_text(path, json.dumps(values, ensure_ascii=False, sort_keys=True) + "\n")


def mixed_machines(out: Path) -> Dict[str, Dict[str, str]]:
    """By its name, in what each machine differs that took part in a run and was accepted.

    Raises:
        DataError: If a note of one is damaged.
    """
    found = {}
    for path in sorted((out / _NOTES).glob("*.json")):
        hint = "remove it; the machine's labels stay as they are"
        with parsing(DataError, f"{path} is damaged", hint=hint):
            values = json_values(file_bytes(path), str(path), DataError, hint=hint)
            found[str(values["host"])] = {str(part): str(what) for part, what in values["differs"].items()}
    return found
