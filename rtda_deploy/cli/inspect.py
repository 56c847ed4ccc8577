"""``rtda-deploy inspect``."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, List, Tuple

import typer

__all__ = ["describe_file", "inspect"]

_SHAPES = ("input_shape", "output_shape")


def inspect(
    file: Path = typer.Argument(..., help="A .pth, an .onnx, an engine's .json, or a spec.json."),
    json_: bool = typer.Option(False, "--json", help="Print one JSON object."),
) -> None:
    """Say what a model file is: its network, size, classes, normalisation and where it comes from.

    Example: rtda-deploy inspect model.onnx
    """
    from rtda_deploy.cli.console import print_json, print_table

    found = describe_file(file)
    if json_:
        print_json(found)
        return
    print_table(("", "value"), _rows(found), title=str(file))


def describe_file(file: Path) -> Dict[str, Any]:
    """What a file is, as JSON-ready values: ``kind``, ``bytes``, ``sha256``, ``spec`` and what only its kind has."""
    from rtda_deploy.errors import ConfigError
    from rtda_deploy.files import readable_file, sha256_file
    from rtda_deploy.spec import ModelSpec

    readable_file(file, what="model")
    found: Dict[str, Any] = {"file": str(file), "bytes": file.stat().st_size, "sha256": sha256_file(file)}
    suffix = file.suffix.lower()
    if suffix in (".pth", ".pt", ".ckpt"):
        return {"kind": "checkpoint", **found, **_checkpoint(file)}
    if suffix == ".onnx":
        return {"kind": "onnx", **found, **_onnx(file)}
    if suffix in (".engine", ".plan"):
        return {"kind": "engine", **found, **_engine(file)}
    if file.name.lower().endswith((".engine.json", ".plan.json")):
        return {"kind": "engine's description", **found, **_engine(file.with_suffix(""))}
    if suffix == ".json":
        return {"kind": "spec", **found, "spec": ModelSpec.load(file).to_dict()}
    raise ConfigError(f"{file} is of no kind that inspect knows", hint="known: .pth, .onnx, .engine, .json")


def _checkpoint(file: Path) -> Dict[str, Any]:
    from rtda_deploy.optional import require

    require("torch", extra="training", purpose="to read a checkpoint")
    from rtda_training.checkpoint import model_from_checkpoint, read_checkpoint
    from rtda_training.models import count_macs, count_parameters

    checkpoint = read_checkpoint(file)
    model = model_from_checkpoint(checkpoint)
    state = checkpoint.training
    resumable = {"stage_index": state["stage_index"], "step": state["step"], "done": state["done"]} if state else None
    return {
        "spec": checkpoint.spec.to_dict(),
        "parameters": count_parameters(model),
        "macs": count_macs(model, checkpoint.spec.size_hw),
        "resumable": resumable,
    }


def _engine(file: Path) -> Dict[str, Any]:
    import dataclasses

    from rtda_deploy.engine_file import read_sidecar

    sidecar = read_sidecar(file)
    return {"spec": sidecar.spec.to_dict(), "built": dataclasses.asdict(sidecar.built)}


def _onnx(file: Path) -> Dict[str, Any]:
    from rtda_deploy.onnx_metadata import precision_from_metadata, spec_from_metadata
    from rtda_export.tensorrt.onnx_metadata import read_onnx_facts

    facts = read_onnx_facts(file)
    spec = spec_from_metadata(dict(facts.metadata), file.name)
    return {
        "spec": spec.to_dict(),
        "opset": facts.opset,
        "precision": precision_from_metadata(facts.metadata),
        "input_shape": list(facts.inputs[0].shape),
        "output_shape": list(facts.outputs[0].shape),
        "more_outputs": [output.name for output in facts.outputs[1:]],
    }


def _rows(found: Dict[str, Any]) -> List[Tuple[str, str]]:
    from rtda_deploy.cli.console import size_text

    spec = found["spec"]
    height, width = spec["size_hw"]
    provenance = dict(spec["provenance"])
    architecture = provenance.pop("architecture", {})
    rows = [
        ("kind", f"{found['kind']}, {size_text(found['bytes'])}"),
        ("network", _words(architecture) or "not stated"),
        ("input", f"{width}x{height} {spec['channel_order']}, {spec['resize']}, {spec['interpolation']}"),
        ("normalise", f"(pixel * {spec['pixel_scale']:.6g} - {_three(spec['mean'])}) / {_three(spec['std'])}"),
        ("output", f"{spec['output']} at 1/{spec['output_stride']}" if spec["output"] == "logits" else "mask"),
        ("classes", f"{len(spec['class_names'])}: {', '.join(spec['class_names'])}"),
    ]
    if "parameters" in found:
        rows.append(
            ("weight", f"{found['parameters']:,} parameters, {found['macs'] / 1e9:.2f} G multiply-adds a picture")
        )
    if "input_shape" in found:
        shapes = ("x".join("?" if side is None else str(side) for side in found[key]) for key in _SHAPES)
        more = f", and {', '.join(found['more_outputs'])}" if found.get("more_outputs") else ""
        rows.append(("shapes", " -> ".join(shapes) + more))
    if "precision" in found:
        facts = found["precision"]
        kept = facts.get("keep_fp32") or facts.get("kept_float") or []
        rows.append(("precision", facts["precision"] + (f", {len(kept)} layers in float32" if kept else "")))
    for key, value in found.get("built", {}).items():
        if value not in (None, [], ()):
            rows.append((key, "x".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)))
    for key, value in provenance.items():
        rows.append((key, ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)))
    rows.append(("sha256", found["sha256"]))
    return rows


def _words(architecture: Any) -> str:
    values = architecture.values() if isinstance(architecture, dict) else [architecture]
    return " ".join(str(value) for value in values)


def _three(values: List[float]) -> str:
    return "(" + ", ".join(f"{value:.6g}" for value in values) + ")"
