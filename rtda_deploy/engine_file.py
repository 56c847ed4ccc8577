"""What stands beside a TensorRT engine: ``model.fp16.engine`` and ``model.fp16.engine.json``.

An engine is a program for one kind of GPU and one version of TensorRT, and says nothing of means, sizes or classes.
Its sidecar says all of that: the :class:`~rtda_deploy.spec.ModelSpec`, what the engine was built from, with and for,
and the engine's sha256. It stands beside the engine, never inside it, so that plain TensorRT tools still load the
engine::

    {"format": 1, "spec": {...}, "built": {"tensorrt": "8.5.2.2", "gpu": "Xavier", ...}, "sha256": "..."}

and ``"card"``, the calibration card's text, where the ONNX has one.
``rtda_export.tensorrt`` writes it, ``rtda_runtime`` reads it.
"""

from __future__ import annotations

import dataclasses
import json
import shlex
from pathlib import Path
from typing import Any, Dict, Mapping, Optional, Tuple, Union

from rtda_deploy.border import json_values, parsing
from rtda_deploy.errors import EngineError
from rtda_deploy.files import readable_file, sha256_file, write_text
from rtda_deploy.spec import ModelSpec

__all__ = [
    "SIDECAR_FORMAT",
    "EngineBuild",
    "EngineSidecar",
    "Machine",
    "check_whole",
    "mismatch",
    "read_sidecar",
    "rebuild_command",
    "sidecar_path",
    "write_sidecar",
]

SIDECAR_FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Machine:
    """Where an engine is built or to be run.

    Attributes:
        tensorrt: Version text of the TensorRT that loads it, such as ``8.5.2.2``.
        gpu: The GPU's name as its driver gives it, such as ``Xavier``.
        compute_capability: Major and minor, such as (7, 2).
    """

    tensorrt: str
    gpu: str
    compute_capability: Tuple[int, int]


@dataclasses.dataclass(frozen=True)
class EngineBuild:
    """What an engine was built from, with and for.

    Attributes:
        onnx: File name of the ONNX it was built from.
        onnx_sha256: Of that file.
        precision: ``fp32``, ``fp16`` or ``int8``, as asked for.
        tensorrt: As in :class:`Machine`; so ``gpu`` and ``compute_capability``.
        size_hw: Height and width of the input, pixels.
        kept_fp32: Nodes of the ONNX that compute in FP32 although the engine is FP16 or INT8.
        dla_core: DLA core it was built for; None: the GPU.
        workspace_mib: Limit on the builder's scratch memory, MiB; None: TensorRT's own.
        tactic_sources: Names of the libraries it may call; None: TensorRT's own choice.
        optimization_level: Of the builder; None: TensorRT's own.
        layers: Of the network, as parsed.
        seconds: The build took.
        rtda_deploy: Version that built it.
    """

    onnx: str
    onnx_sha256: str
    precision: str
    tensorrt: str
    gpu: str
    compute_capability: Tuple[int, int]
    size_hw: Tuple[int, int]
    kept_fp32: Tuple[str, ...] = ()
    dla_core: Optional[int] = None
    workspace_mib: Optional[int] = None
    tactic_sources: Optional[Tuple[str, ...]] = None
    optimization_level: Optional[int] = None
    layers: int = 0
    seconds: float = 0.0
    rtda_deploy: str = ""

    @property
    def machine(self) -> Machine:
        """Where it runs."""
        return Machine(self.tensorrt, self.gpu, self.compute_capability)

    def same_engine(self, other: EngineBuild) -> bool:
        """Whether building as ``other`` says would give this engine again: all but what only reports is equal."""
        return self._key() == other._key()

    def _key(self) -> EngineBuild:
        return dataclasses.replace(self, onnx="", layers=0, seconds=0.0, rtda_deploy="")


@dataclasses.dataclass(frozen=True)
class EngineSidecar:
    """The contents of ``model.engine.json``.

    Attributes:
        spec: What the runtime must know.
        built: What it was built from, with and for.
        sha256: Of the engine.
        size_bytes: Of the engine.
        card: Calibration card of the network, the JSON text of the ONNX's ``rtda.card``; empty where it has none.
    """

    spec: ModelSpec
    built: EngineBuild
    sha256: str
    size_bytes: int
    card: str = ""

    def to_json(self) -> str:
        """JSON text; ``EngineSidecar.from_json(sidecar.to_json()) == sidecar``."""
        values: Dict[str, Any] = {
            "format": SIDECAR_FORMAT,
            "spec": self.spec.to_dict(),
            "built": dataclasses.asdict(self.built),
            "sha256": self.sha256,
            "size_bytes": self.size_bytes,
        }
        if self.card:
            values["card"] = self.card
        return json.dumps(values, indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: Union[str, bytes], *, where: str = "sidecar") -> EngineSidecar:
        """Read a sidecar; ``where`` names the file it came from in errors. Fields it does not know are passed over.

        Raises:
            EngineError: If it is no sidecar, or of a newer format.
            SpecError: If the spec in it is broken.
        """
        values = json_values(text, where, EngineError, hint=_REBUILD, allow_nan=True)
        if not isinstance(values, dict) or not {"format", "spec", "built", "sha256"} <= set(values):
            raise EngineError(
                f"{where} does not describe an engine", why="it lacks format, spec, built or sha256", hint=_REBUILD
            )
        if values["format"] != SIDECAR_FORMAT:
            raise EngineError(
                f"{where} is format {values['format']!r}, this rtda-deploy reads {SIDECAR_FORMAT}",
                hint="pip install --upgrade rtda-deploy   (or build the engine again with the version installed here)",
            )
        spec = ModelSpec.from_dict(values["spec"], where=f"{where}, spec")
        with parsing(EngineError, f"{where} does not describe an engine", hint=_REBUILD):
            card = str(values.get("card") or "")  # whether it is one is card_from_json's to say
            return cls(spec, _build(values["built"]), str(values["sha256"]), int(values.get("size_bytes", 0)), card)


def sidecar_path(engine: Union[str, Path]) -> Path:
    """``model.engine`` -> ``model.engine.json``."""
    return Path(f"{engine}.json")


def read_sidecar(engine: Union[str, Path]) -> EngineSidecar:
    """What stands beside ``engine``.

    Raises:
        EngineError: If there is no sidecar, or it cannot be used.
        SpecError: If the spec in it is broken.
        FileAccessError: If it cannot be read.
    """
    path = sidecar_path(engine)
    if not path.exists():
        raise EngineError(
            f"{Path(engine).name} has no {path.name} beside it",
            why="a TensorRT engine says nothing of mean, size or classes; the .json does",
            hint="copy the .json too, or give the engine's contract: --spec spec.json, or build it again: "
            "rtda-deploy export model.onnx --to engine",
        )
    return EngineSidecar.from_json(readable_file(path, what="sidecar").read_bytes(), where=path.name)


def write_sidecar(engine: Union[str, Path], sidecar: EngineSidecar) -> Path:
    """Write the sidecar of ``engine``, whole or not at all.

    Raises:
        FileAccessError: If it cannot be written.
    """
    return write_text(sidecar_path(engine), sidecar.to_json())


def check_whole(engine: Union[str, Path], sidecar: EngineSidecar) -> None:
    """Refuse an engine whose bytes are not those that were built.

    Raises:
        EngineError: If it is shorter, longer or different.
        FileAccessError: If it cannot be read.
    """
    path = readable_file(engine, what="engine")
    found, expected = path.stat().st_size, sidecar.size_bytes
    if expected and found != expected:
        state = "truncated" if found < expected else "not the engine that its .json describes"
        raise EngineError(
            f"{path.name} is {state}: {found} bytes, {expected} were built",
            hint=f"was it copied to its end? Copy it again, or: {rebuild_command(sidecar, path)}",
        )
    if sha256_file(path) != sidecar.sha256:
        raise EngineError(
            f"{path.name} is not the engine that its .json describes: its sha256 differs",
            hint=f"copy both files again, or: {rebuild_command(sidecar, path)}",
        )


def mismatch(sidecar: EngineSidecar, here: Machine, *, name: str = "the engine") -> Optional[str]:
    """Why the engine cannot be used on ``here``, in one sentence; None: it can.

    Engines move neither between versions of TensorRT nor between kinds of GPU. ``name`` begins the sentence.
    """
    built = sidecar.built
    if built.tensorrt != here.tensorrt:
        return f"{name} was built with TensorRT {built.tensorrt}, this machine has {here.tensorrt}"
    if built.compute_capability != here.compute_capability:
        return f"{name} was built for compute capability {_capability(built.machine)}, this GPU has {_capability(here)}"
    if built.gpu != here.gpu:
        return f"{name} was built on another GPU of the same kind: {built.gpu}, here is {here.gpu}"
    return None


def rebuild_command(sidecar: EngineSidecar, engine: Union[str, Path]) -> str:
    """The command that builds ``engine`` again here, from the ONNX beside it."""
    built, path = sidecar.built, Path(engine)
    words = ["rtda-deploy", "export", str(path.parent / built.onnx), "--to", "engine", "--precision", built.precision]
    if built.dla_core is not None:
        words += ["--dla", str(built.dla_core)]
    return " ".join(shlex.quote(word) for word in words)


_REBUILD = "build the engine again: rtda-deploy export model.onnx --to engine"


def _capability(machine: Machine) -> str:
    major, minor = machine.compute_capability
    return f"{major}.{minor} ({machine.gpu})"


def _build(values: Mapping[str, Any]) -> EngineBuild:
    """Check and normalise ``built``: lists become tuples, unknown fields are passed over."""
    known = {field.name for field in dataclasses.fields(EngineBuild)}
    fields = {name: value for name, value in dict(values).items() if name in known}
    for name in ("onnx", "onnx_sha256", "precision", "tensorrt", "gpu"):
        if not isinstance(fields[name], str):
            raise ValueError(f"{name} is {fields[name]!r}")
    for name in ("compute_capability", "size_hw"):
        first, second = fields[name]
        fields[name] = (int(first), int(second))
    for name in ("kept_fp32", "tactic_sources"):
        if fields.get(name) is not None:
            fields[name] = tuple(str(entry) for entry in fields[name])
    return EngineBuild(**fields)
