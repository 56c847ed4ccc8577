"""What an export may write over: files that came from the same model, and never one that it reads."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Dict, Iterable, Mapping, Optional

from rtda_deploy.engine_file import read_sidecar
from rtda_deploy.errors import ConfigError, RtdaError
from rtda_deploy.files import sha256_file
from rtda_deploy.onnx_file import onnx_spec, read_onnx_metadata
from rtda_deploy.overwriting import refuse_overwriting, same_place
from rtda_deploy.spec import ModelSpec
from rtda_export.request import Request

__all__ = ["refuse_losing"]

_ANCESTRY = ("architecture", "recipe", "domains", "seed")  # what two checkpoints of one run have in common


def refuse_losing(request: Request, targets: Iterable[Path], *, in_place: bool = False) -> None:
    """Check that nothing is lost by writing ``targets``.

    A file made of the same model is made anew, with whatever settings: that is what a second export is for. So is one
    beside its checkpoint that came from an earlier step of the same run.

    Args:
        request: What was asked for.
        targets: Files that will be written.
        in_place: Whether the one target is the model that was given, which is to get a spec.

    Raises:
        ConfigError: If a target is read, or if it is another model's; ``--force`` allows the second, and ``in_place``.
    """
    targets = list(targets)
    if in_place:
        if not request.options.force:
            raise ConfigError(
                f"the {'blocks' if request.options.footage else 'spec'} would be written into {request.parent} itself",
                hint="--out ANOTHER_FOLDER   (or --force writes into this very file)",
            )
        return
    refuse_overwriting([("export", path) for path in targets], _inputs(request))
    for path in targets:
        if os.path.exists(path) and not request.options.force and not _of_same_model(request, path):
            raise ConfigError(
                f"{path} is there already, and was made of another model than {request.parent}",
                hint="choose another folder with --out, or move it away"
                "   (--force writes over it; it also keeps a file that is past its limit)",
            )


def _inputs(request: Request) -> Dict[str, str]:
    from rtda_runtime.sources.kinds import source_files

    found = {str(request.parent): "the model"}
    for what, address in (
        ("--verify", request.options.verify_path),
        ("--calibrate", request.options.calibrate),
        ("--footage", request.options.footage),
    ):
        if address is not None:
            found.update(dict.fromkeys(map(str, source_files(address)), what))
    return found


def _of_same_model(request: Request, path: Path) -> bool:
    found = _spec_of(path)
    if found is None:
        return not _is_model(path)  # a broken file may be replaced
    theirs = found.provenance
    if not request.from_checkpoint:
        ours = request.spec or _spec_of(request.parent)
        if ours is None:
            return False
        keys = ("parent_sha256", *_ANCESTRY)
        return _picked(ours.provenance, keys) == _picked(theirs, keys) and ours.class_names == found.class_names
    if theirs.get("parent_sha256") == sha256_file(request.parent):
        return True
    from rtda_training.checkpoint import read_checkpoint

    beside = same_place(request.folder, request.parent.parent) and request.stem == request.parent.stem
    ours_too = read_checkpoint(request.parent, spec=request.spec).spec.provenance
    return beside and "recipe" in theirs and _picked(ours_too, _ANCESTRY) == _picked(theirs, _ANCESTRY)


def _is_model(path: Path) -> bool:
    """Whether a file without a spec is a model all the same; an engine can always be built again."""
    try:
        read_onnx_metadata(path)
    except RtdaError:
        return False
    return True


def _picked(provenance: Mapping[str, object], keys: Iterable[str]) -> Dict[str, object]:
    return {key: provenance.get(key) for key in keys}


def _spec_of(path: Path) -> Optional[ModelSpec]:
    """The spec of an ``.onnx`` or an engine; None where it has none that can be read."""
    try:
        if path.suffix == ".engine":
            return read_sidecar(path).spec
        return onnx_spec(path)
    except RtdaError:
        return None
