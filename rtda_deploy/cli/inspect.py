"""``rtda-deploy inspect``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Tuple

import typer

__all__ = ["describe_file", "inspect"]

_SHAPES = ("input_shape", "output_shape")


def inspect(
    file: Path = typer.Argument(..., help="A .pth, a model that runs, an engine's .json, or a spec.json."),
    spec_template: bool = typer.Option(
        False, "--spec-template", help="Print a spec.json to fill in and give to --spec, for a model that has none."
    ),
    kernels: bool = typer.Option(
        False, "--kernels", help="Run an .onnx a few times in OpenVINO: which kernels its layers run on, and how long."
    ),
    json_: bool = typer.Option(False, "--json", help="Print one JSON object."),
) -> None:
    """Say what a model file is: its network, size, classes, normalisation and where it comes from.

    Of somebody else's .onnx: its inputs, outputs and shapes.

    Example: rtda-deploy inspect model.onnx
    """
    from rtda_deploy.cli.terminal.console import print_json, print_next, print_table

    if spec_template:
        _print_template(file)
        return
    found = describe_file(file)
    if kernels:
        found["kernels"] = _kernels(file, found)
    if json_:
        print_json(found)
        return
    if kernels:
        _print_kernels(found["kernels"], file)
        return
    print_table(("", "value"), _rows(found) if found["spec"] else _foreign_rows(found), title=str(file))
    if not found["spec"]:
        name = shlex.quote(str(file))
        print_next(
            f"rtda-deploy inspect {name} --spec-template > spec.json   (and fill it in)",
            f"rtda-deploy export {name} --spec spec.json --out with-spec   (writes it into a copy)",
        )


def _kernels(file: Path, found: Dict[str, Any]) -> Dict[str, Any]:
    """Layers of an ``.onnx`` in OpenVINO, as JSON-ready values."""
    from rtda_deploy.errors import ConfigError
    from rtda_runtime.engines.openvino_kernels import by_kernel, convolutions_sentence, layers_of

    if found["kind"] != "onnx" or not found["spec"]:
        why = "it has no spec" if found["kind"] == "onnx" else f"it is a {found['kind']}"
        raise ConfigError(
            f"--kernels takes an .onnx file that runs, and {file} does not: {why}",
            hint=f"export it first: rtda-deploy export {shlex.quote(str(file))}",
        )
    layers = layers_of(file)
    return {
        "ms": sum(layer.ms for layer in layers),
        "by_kernel": by_kernel(layers),
        "convolutions": convolutions_sentence(layers),
        "layers": [{**layer._asdict(), "in_8_bits": layer.in_8_bits} for layer in layers],
    }


def _print_kernels(found: Dict[str, Any], file: Path) -> None:
    from rtda_deploy.cli.terminal.console import note, print_table

    rows = [
        (row["kind"], row["kernel"], str(row["layers"]), f"{row['ms']:.2f}", f"{100 * row['share']:.0f} %")
        for row in found["by_kernel"]
    ]
    title = f"{file} in OpenVINO: {found['ms']:.2f} ms in all, timed layer by layer"
    print_table(("kind", "kernel", "layers", "ms", "share"), rows, title=title)
    note(found["convolutions"])


def _print_template(file: Path) -> None:
    from rtda_deploy.cli.spec_template import template_for
    from rtda_deploy.cli.terminal.console import note, print_next

    spec, guesses = template_for(file)
    print(spec.to_json())
    for sentence in guesses:
        note(f"fill in {sentence}")
    print_next(f"rtda-deploy export {shlex.quote(str(file))} --spec spec.json --out with-spec")


def describe_file(file: Path) -> Dict[str, Any]:
    """What a file is, as JSON-ready values: ``kind``, ``bytes``, ``sha256``, ``spec`` and what only its kind has."""
    from rtda_deploy.engine_file import read_sidecar
    from rtda_deploy.errors import ConfigError
    from rtda_deploy.files import readable_file, sha256_file
    from rtda_deploy.model_files import is_checkpoint_name
    from rtda_deploy.spec import ModelSpec
    from rtda_runtime.engines.kinds import engine_kinds, kinds_of
    from rtda_runtime.kinds import function_named

    readable_file(file, what="model")
    found: Dict[str, Any] = {"file": str(file), "bytes": file.stat().st_size, "sha256": sha256_file(file)}
    suffix = file.suffix.lower()
    if is_checkpoint_name(file):
        return {"kind": "checkpoint", **found, **_checkpoint(file)}
    if suffix == ".onnx":
        return {"kind": "onnx", **found, **_onnx(file)}
    beside = file.with_suffix("") if suffix == ".json" else file
    for kind in kinds_of(beside):
        if kind.describe:
            described = function_named(kind.describe)(beside)
            if described.get("familiar"):  # of an engine; which time it supports, its room does not know
                described["familiar"] = _familiar(read_sidecar(beside).card)
            word = described.pop("kind") + ("'s description" if beside != file else "")
            return {"kind": word, **found, **described}
    if suffix == ".json":
        return {"kind": "spec", **found, "spec": ModelSpec.load(file).to_dict()}
    known = dict.fromkeys([".pth", ".onnx", *(kind.suffixes[0] for kind in engine_kinds() if kind.describe), ".json"])
    raise ConfigError(f"{file} is of no kind that inspect knows", hint=f"known: {', '.join(known)}")


def _checkpoint(file: Path) -> Dict[str, Any]:
    from rtda_deploy.border import parsing
    from rtda_deploy.errors import CheckpointError
    from rtda_deploy.optional import require

    require("torch", extra="training", purpose="to read a checkpoint")
    from rtda_training.checkpoint import model_from_checkpoint, read_checkpoint
    from rtda_training.models import count_macs, count_parameters

    checkpoint = read_checkpoint(file)
    model = model_from_checkpoint(checkpoint)
    state = checkpoint.training
    with parsing(CheckpointError, f"{file} cannot be resumed from", hint="copy it again, or take another of its run"):
        resumable = {key: state[key] for key in ("stage_index", "step", "done")} if state else None
    return {
        "spec": checkpoint.spec.to_dict(),
        "parameters": count_parameters(model),
        "macs": count_macs(model, checkpoint.spec.size_hw),
        "resumable": resumable,
        "card": _card(checkpoint.card),
        "familiar": _familiar(checkpoint.card),
    }


def _onnx(file: Path) -> Dict[str, Any]:
    import dataclasses

    from rtda_deploy.onnx_file import precision_from_metadata, read_onnx_facts

    facts = read_onnx_facts(file, allow_external=True)
    spec = facts.spec
    return {
        "spec": None if spec is None else spec.to_dict(),
        "opset": facts.opset,
        "precision": precision_from_metadata(facts.metadata),
        "card": _card(facts.card),
        "familiar": _familiar(facts.card),
        "inputs": [dataclasses.asdict(value) for value in facts.inputs],
        "outputs": [dataclasses.asdict(value) for value in facts.outputs],
        "input_shape": list(facts.inputs[0].shape) if facts.inputs else None,
        "output_shape": list(facts.outputs[0].shape) if facts.outputs else None,
        "more_outputs": [output.name for output in facts.outputs[1:]],
        "weights_elsewhere": facts.external,
    }


def _card(text: str) -> Optional[Dict[str, Any]]:
    """The calibration card of a file as values; None where it has none."""
    from rtda_deploy.card import card_from_json

    card = card_from_json(text)
    return None if card is None else card.to_dict()


def _familiar(text: str) -> Optional[Dict[str, Any]]:
    """What the shift alarm is calibrated on, and the longest time between false alarms that it supports, seconds."""
    from rtda_deploy.familiar import familiar_from_json
    from rtda_runtime.shift.alarm import longest_shift_s

    found = familiar_from_json(text)
    return None if found is None else {**found.summary(), "longest_shift_s": round(longest_shift_s(found), 1)}


def _familiar_sentence(found: Mapping[str, Any]) -> str:
    from rtda_runtime.shift.support import duration_text

    what = "footage" if found["robot"] else "pictures of the source,"
    text = f"{found['blocks']} blocks of {found['block_s']:g} s of {what} {found['data']}"
    longest = found["longest_shift_s"]
    return f"{text}: {f'--shift up to {duration_text(longest)}' if longest >= 1 else 'too few for --shift'}"


def _rows(found: Dict[str, Any]) -> List[Tuple[str, str]]:
    from rtda_deploy.card import card_sentence
    from rtda_deploy.cli.lineage import drawn_lineage
    from rtda_deploy.cli.terminal.console import size_text

    spec = found["spec"]
    height, width = spec["size_hw"]
    provenance = dict(spec["provenance"])
    architecture, ancestry = provenance.pop("architecture", {}), provenance.pop("ancestry", None)
    rows = [
        ("kind", f"{found['kind']}, {size_text(found['bytes'])}"),
        ("network", _words(architecture) or "not stated"),
        ("input", f"{width}x{height} {_taken(spec)}, {spec['resize']}, {spec['interpolation']}"),
        ("normalise", _normalising(spec)),
        ("output", f"{spec['output']} at 1/{spec['output_stride']}" if spec["output"] == "logits" else spec["output"]),
        ("classes", f"{len(spec['class_names'])}: {', '.join(spec['class_names'])}"),
    ]
    if "parameters" in found:
        rows.append(
            ("weight", f"{found['parameters']:,} parameters, {found['macs'] / 1e9:.2f} G multiply-adds a picture")
        )
    if found.get("input_shape") and found.get("output_shape"):
        shapes = (_shape_text(found[key]) for key in _SHAPES)
        more = f", and {', '.join(found['more_outputs'])}" if found.get("more_outputs") else ""
        rows.append(("shapes", " -> ".join(shapes) + more))
    if "precision" in found:
        facts = found["precision"]
        kept = facts.get("keep_fp32") or facts.get("kept_float") or []
        in_float32 = f", {len(kept)} layers in float32" if kept else ""
        rows.append(("precision", f"{facts['precision']}{in_float32}{_in_bf16(facts)}"))
    if found.get("card"):
        rows.append(("card", card_sentence(found["card"])))
    if found.get("familiar"):
        rows.append(("familiar", _familiar_sentence(found["familiar"])))
    for key, value in found.get("built", {}).items():
        if value not in (None, [], ()):
            rows.append((key, "x".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)))
    for key, value in provenance.items():
        rows.append((key, ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)))
    rows.append(("sha256", found["sha256"]))
    for place, line in enumerate(drawn_lineage(ancestry, found["sha256"])):
        rows.append(("lineage" if not place else "", line))
    return rows


def _taken(spec: Dict[str, Any]) -> str:
    """``rgb``, or ``bgr uint8 nhwc`` where the graph makes the rest of a frame's pixels."""
    kind = spec.get("input", "float32")
    return str(spec["channel_order"]) if kind == "float32" else f"bgr {kind} {spec.get('layout', 'nchw')}"


def _normalising(spec: Dict[str, Any]) -> str:
    done = f"(pixel * {spec['pixel_scale']:.6g} - {_three(spec['mean'])}) / {_three(spec['std'])}"
    return done if spec.get("input", "float32") == "float32" else f"in the graph: {spec['channel_order']}, {done}"


def _in_bf16(facts: Dict[str, Any]) -> str:
    """What the export of a float32 file found of it in bfloat16; empty where the file says nothing."""
    from rtda_runtime.engines.bf16 import verified

    found = verified(facts)
    if found is None:
        return ""
    passed = "" if found.passed else ", which does not pass"
    return f", in bfloat16 {100 * found.agreement:.4g} % of pixels agree on {found.frames} pictures{passed}"


def _foreign_rows(found: Dict[str, Any]) -> List[Tuple[str, str]]:
    """Of an ``.onnx`` without a spec: what the graph says."""
    from rtda_deploy.cli.terminal.console import size_text

    rows = [("kind", f"{found['kind']}, {size_text(found['bytes'])}, opset {found['opset']}")]
    for role in ("inputs", "outputs"):
        values = found[role] or [None]
        for value in values:
            text = f"{value['name']}  {_shape_text(value['shape'])}  {value['dtype']}" if value else "none"
            rows.append((role[:-1], text))
    if found["weights_elsewhere"]:
        rows.append(("weights", "in another file, which has to lie beside this one"))
    rows.append(("spec", "none: the file says nothing of its classes, mean and size"))
    rows.append(("sha256", found["sha256"]))
    return rows


def _shape_text(shape: List[Any]) -> str:
    return "x".join("?" if side is None else str(side) for side in shape) or "scalar"


def _words(architecture: Any) -> str:
    values = architecture.values() if isinstance(architecture, dict) else [architecture]
    return " ".join(str(value) for value in values)


def _three(values: List[float]) -> str:
    return "(" + ", ".join(f"{value:.6g}" for value in values) + ")"
