"""Kinds of engine as somebody would add them: this file and a row each. A model is the JSON of its spec."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, Optional, Tuple

from runtime.fakes import NumpyEngine

from rtda_deploy.optional import Package
from rtda_deploy.spec import ModelSpec
from rtda_runtime.engines import Engine, EngineKind

__version__ = "7.5"


class ToyEngine(NumpyEngine):
    def __init__(self, spec: ModelSpec, name: str) -> None:
        super().__init__(spec)
        self.provider, self.description = "toy", f"{name}, Toy {__version__}"


def open_toy(path: Path, *, provider: str, spec: Optional[ModelSpec], threads: Optional[int]) -> Engine:
    return ToyEngine(spec or ModelSpec.load(path), path.name)


def describe(path: Path) -> Dict[str, Any]:
    return {"kind": "toy", "spec": ModelSpec.load(path).to_dict()}


def wound_up() -> Tuple[str, str, str]:
    return "problem", "it is not wound up", "turn the key"


TOY = EngineKind(
    name="Toy",
    suffixes=(".toy",),
    providers=("toy",),
    opener="runtime.toy_engine:open_toy",
    packages=(Package("runtime.toy_engine", "runtime", "running toys"), Package("toy_key", "openvino", "winding up")),
    describe="runtime.toy_engine:describe",
    checks=(("Toy's spring", "runtime.toy_engine:wound_up"),),
)
# The least that a row can say: it needs no library.
BARE = EngineKind(
    name="Bare", suffixes=(".bare",), providers=("bare",), opener="runtime.toy_engine:open_toy", packages=()
)
