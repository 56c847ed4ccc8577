"""What is used of TensorRT's Python API, held against the real bindings of four versions.

``tools/tensorrt_bindings.py`` fetches bindings of about 1 MB each and has gcc make the libraries they are linked to;
the real 8.5.2, a Xavier's, is in ``make test-jetson``.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Set

import pytest
from export.tensorrt_names import USED

from export import tensorrt_standins as standins
from rtda_export.precision import PRECISIONS
from rtda_export.tensorrt.settings import TACTIC_SOURCES

ROOT = Path(__file__).parents[3]
BUILDER = sorted((ROOT / "export" / "rtda_export" / "tensorrt").glob("*.py"))
RUNTIME = sorted((ROOT / "runtime" / "rtda_runtime" / "engines").glob("*tensorrt*.py"))

# Version of the bindings -> its generation in the table.
GENERATIONS = {"8.6.1": "8.6", "10.0.1": "10", "10.16.1.11": "10", "11.4.0.106": "11"}

# What a variable of this name holds, in this project.
VARIABLES = {
    "builder": "Builder",
    "cache": "ITimingCache",
    "config": "IBuilderConfig",
    "content": "IHostMemory",
    "context": "IExecutionContext",
    "engine": "ICudaEngine",
    "error": "ParserError",
    "layer": "ILayer",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "runtime": "Runtime",
    "trt": "",
}
RESULTS = {"ILayer.get_output": "ITensor"}  # what a method gives, where its result is used at once
NOT_API = {"__version__", "__file__", "__path__", "__init__"}

# Words of the real docstrings that calls rely on: names given by keyword, order, and what comes back.
SIGNATURES = {
    "Builder.build_serialized_network": ["network", "config", "IHostMemory"],
    "Builder.create_network": ["flags"],
    "IBuilderConfig.create_timing_cache": ["serialized_timing_cache", "ITimingCache"],
    "IBuilderConfig.set_memory_pool_limit": ["pool", "pool_size"],
    "IBuilderConfig.set_preview_feature": ["feature", "enable: bool"],
    "IBuilderConfig.set_tactic_sources": ["-> bool"],
    "IBuilderConfig.set_timing_cache": ["cache", "ignore_mismatch: bool", "-> bool"],
    "ITimingCache.serialize": ["-> ", "IHostMemory"],
    "OnnxParser.get_error": ["ParserError"],
    "OnnxParser.parse_from_file": ["model: str", "-> bool"],
    "ParserError.node": ["-> int"],
}


class _Uses:
    """The names of TensorRT that a file touches; those it asks for with hasattr are also in ``guarded``."""

    def __init__(self, path: Path) -> None:
        self.names: Set[str] = set()
        self.guarded: Set[str] = set()
        tree = ast.parse(path.read_text(encoding="utf-8"))
        self._aliases: Dict[str, str] = {}
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
                found = self._dotted(node.value)
                if found and isinstance(node.value, ast.Attribute) and "." not in found:
                    self._aliases[node.targets[0].id] = found
        for scope in self._scopes(tree):
            self._scan(scope)

    def _scopes(self, tree: ast.Module) -> Iterator[ast.AST]:
        """Functions and classes wherever they are, and the other statements of the module."""
        inner = (ast.FunctionDef, ast.ClassDef)
        yield from (node for node in ast.walk(tree) if isinstance(node, inner))
        yield from (node for node in tree.body if not isinstance(node, inner))

    def _scan(self, scope: ast.AST) -> None:
        ours: Set[str] = set()  # arguments of a type of ours, such as ``engine: Engine``
        pending: List[ast.AST] = [scope]
        if isinstance(scope, ast.FunctionDef):
            for argument in [*scope.args.args, *scope.args.kwonlyargs]:
                if argument.annotation is not None and ast.unparse(argument.annotation) != "Any":
                    ours.add(argument.arg)
            pending = [*scope.body, *scope.decorator_list]
        elif isinstance(scope, ast.ClassDef):
            pending = [*scope.bases, *(node for node in scope.body if isinstance(node, (ast.Assign, ast.AnnAssign)))]
        while pending:
            node = pending.pop()
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                continue  # scopes of their own
            self._look(node, ours)
            pending += list(ast.iter_child_nodes(node))

    def _look(self, node: ast.AST, ours: Set[str]) -> None:
        if isinstance(node, ast.Attribute):
            name = self._dotted(node, ours)
            if name and not set(name.split(".")) & NOT_API:
                self.names.add(name)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("hasattr", "getattr"):
            owner, wanted = self._dotted(node.args[0], ours), node.args[1]
            if owner is not None and isinstance(wanted, ast.Constant) and wanted.value not in NOT_API:
                name = ".".join(part for part in (owner, str(wanted.value)) if part)
                self.names.add(name)
                self.guarded.add(name)

    def _dotted(self, node: ast.AST, ours: Optional[Set[str]] = None) -> Optional[str]:
        """``trt.A.B`` -> ``A.B``; ``config.x`` -> ``IBuilderConfig.x``; None: nothing of TensorRT's."""
        if isinstance(node, ast.Name):
            if node.id in (ours or ()):
                return None
            return self._aliases.get(node.id, VARIABLES.get(node.id))
        if isinstance(node, ast.Call):
            return RESULTS.get(self._dotted(node.func, ours) or "")
        if isinstance(node, ast.Attribute):
            if isinstance(node.value, ast.Name) and node.value.id == "self":
                return VARIABLES.get(node.attr.lstrip("_")) if node.attr.startswith("_") else None
            if isinstance(node.value, ast.Name) and node.value.id == "parsed" and node.attr == "network":
                return VARIABLES["network"]
            owner = self._dotted(node.value, ours)
            return None if owner is None else ".".join(part for part in (owner, node.attr) if part)
        return None


def _used_by(paths: List[Path]) -> _Uses:
    first, *rest = [_Uses(path) for path in paths]
    for uses in rest:
        first.names |= uses.names
        first.guarded |= uses.guarded
    return first


def _leaves(names: Set[str]) -> Set[str]:
    """Without the classes through which others are reached."""
    return {name for name in names if not any(other.startswith(f"{name}.") for other in names)}


def test_the_table_names_all_that_the_builder_touches_and_nothing_else() -> None:
    flags = {name for precision in PRECISIONS for name in (*precision.engine.flags, *precision.engine.cleared)}
    by_name = {f"TacticSource.{name.upper()}" for name in TACTIC_SOURCES} | {f"BuilderFlag.{name}" for name in flags}
    touched = _used_by(BUILDER).names | by_name
    assert _leaves(touched) - set(USED) == set(), "add these to USED"
    assert set(USED) - touched == set(), "take these out of USED"


def test_what_not_every_version_has_is_asked_for_first() -> None:
    uses = _used_by(BUILDER)
    elsewhere = {  # behind a question about another name of the same generation
        "BuilderFlag.INT8",
        "BuilderFlag.OBEY_PRECISION_CONSTRAINTS",
        "ILayer.precision",
        "ILayer.set_output_type",
        "IBuilderConfig.progress_monitor",
        "ParserError.node_name",
    }
    partial = {name for name, versions in USED.items() if versions != "8.5 8.6 10 11"}
    by_name = {name for name in partial if name.startswith("TacticSource.")}
    assert partial - by_name - elsewhere <= uses.guarded


def test_the_scan_itself_sees_what_it_should(tmp_path: Path) -> None:
    path = tmp_path / "some.py"
    path.write_text(
        "def f(trt, config, engine: Engine):\n"
        "    kinds = trt.NetworkDefinitionCreationFlag\n"
        "    config.set_flag(trt.BuilderFlag.FP8)\n"
        "    if hasattr(kinds, 'STRONGLY_TYPED'):\n"
        "        config.wonder = engine.spec\n"
        "    return [layer.get_output(0).dtype for layer in ()]\n"
    )
    uses = _Uses(path)
    expected = {"BuilderFlag.FP8", "IBuilderConfig.set_flag", "IBuilderConfig.wonder", "ITensor.dtype"}
    assert _leaves(uses.names) == expected | {"ILayer.get_output", "NetworkDefinitionCreationFlag.STRONGLY_TYPED"}
    assert uses.guarded == {"NetworkDefinitionCreationFlag.STRONGLY_TYPED"}


def _surface(generation: str) -> Dict[str, Any]:
    """Every public name of a stand-in, and the numbers of its enums."""
    trt, _ = standins.standin(generation)
    names, numbers = [], {}
    for kind, made in sorted(vars(trt).items()):
        if kind.startswith("_"):
            continue
        for member in dir(made):
            if member.startswith("_") or (issubclass(made, standins._Enum) and member in ("name", "value")):
                continue
            if issubclass(made, bytes) and member != "nbytes":
                continue
            names.append(f"{kind}.{member}")
            if issubclass(made, standins._Enum) and kind in standins._NUMBERED:
                numbers[f"{kind}.{member}"] = int(getattr(made, member))
    return {"names": names, "numbers": numbers}


@pytest.mark.parametrize("generation", standins.VERSIONS)
def test_a_stand_in_has_what_the_table_says(generation: str) -> None:
    trt, _ = standins.standin(generation)
    instance_only = {"IBuilderConfig.default_device_type", "IBuilderConfig.DLA_core", "ITensor.dtype"}
    instance_only |= {"ILayer.name", "ILayer.type"}
    for name in set(USED) - instance_only:
        owner, _, member = name.rpartition(".")
        there = hasattr(getattr(trt, owner, None) if owner else trt, member)
        assert there == standins.has(name, generation), name


# Run under the real bindings; what it prints is compared here.
_PROBE = """
import json, sys
import tensorrt as trt
from rtda_export.tensorrt.dialects import dialect_of
from rtda_export.tensorrt.progress import Watch, monitor_for
from rtda_runtime.engines.tensorrt_session import tensorrt_logger

asked = json.load(sys.stdin)

def find(name):
    found = trt
    for part in name.split("."):
        found = getattr(found, part)
    return found

def there(name):
    try:
        find(name)
    except AttributeError:
        return False
    return True

dialect = dialect_of(trt)
watch = Watch()
monitor = monitor_for(trt, watch)
goes_on = None
if monitor is not None:
    monitor.phase_start("a", None, 2)
    goes_on = [monitor.step_complete("a", 0)]
    watch.stop.set()
    goes_on += [monitor.step_complete("a", 1)]
    monitor.phase_finish("a")
log = tensorrt_logger(trt)
log.log(trt.ILogger.ERROR, "said")
print(json.dumps({
    "version": trt.__version__,
    "there": [name for name in asked["names"] if there(name)],
    "numbers": {name: int(find(name)) for name in asked["numbers"] if there(name)},
    "docs": {name: find(name).__doc__ for name in asked["docs"] if there(name)},
    "dialect": dialect.name,
    "flags": [dialect.network_flags(trt, strongly_typed=typed) for typed in (False, True)],
    "goes_on": goes_on,
    "said": log.reason(),
}))
"""


def _bindings() -> Any:
    """The project's own tool."""
    place = importlib.util.spec_from_file_location("tensorrt_bindings", ROOT / "tools" / "tensorrt_bindings.py")
    assert place is not None and place.loader is not None
    module = importlib.util.module_from_spec(place)
    place.loader.exec_module(module)
    return module


def _run(version: str, program: str, given: Any = None, *, libraries: bool = True) -> subprocess.CompletedProcess[str]:
    tool = _bindings()
    try:
        extra = tool.environment(version, libraries=libraries)
    except tool.NoBindings as err:
        pytest.skip(f"no TensorRT {version} to compare with: {err}")
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        input=json.dumps(given),
        env={**os.environ, **extra},
        capture_output=True,
        text=True,
    )


@pytest.mark.system
@pytest.mark.parametrize("version", GENERATIONS)
def test_the_real_bindings_have_what_the_table_says(version: str) -> None:
    generation = GENERATIONS[version]
    runtime = _used_by(RUNTIME)
    surface = _surface(generation)
    asked = {
        "names": sorted({*USED, *runtime.names, *surface["names"]}),
        "numbers": sorted(surface["numbers"]),
        "docs": sorted(SIGNATURES),
    }
    done = _run(version, _PROBE, asked)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    there = set(found["there"])
    assert found["version"] == version
    assert {name for name in USED if name in there} == {name for name in USED if standins.has(name, generation)}
    assert runtime.names - runtime.guarded <= there, "the runtime uses what this version does not have"
    assert set(surface["names"]) <= there, "the stand-in has what the real module does not"
    assert found["numbers"] == surface["numbers"]
    for name, words in SIGNATURES.items():
        assert all(word in found["docs"][name] for word in words), f"{name}: {found['docs'][name]}"
    assert found["dialect"] == {"8.6": "8.x", "10": "10.x", "11": "11.x"}[generation]
    assert found["flags"] == {"8.6": [1, 0], "10": [1, 2], "11": [0, 1]}[generation]
    assert found["goes_on"] == (None if generation == "8.6" else [True, False])
    assert found["said"] == "said"


_ERRORS = """
from rtda_deploy.errors import RtdaError
from rtda_export.tensorrt.library import load_tensorrt, new_builder
try:
    new_builder(load_tensorrt())
except RtdaError as err:
    print(type(err).__name__, err.exit_code, err.message, err.why, err.hint, sep="|")
"""


@pytest.mark.system
@pytest.mark.parametrize("version", GENERATIONS)
def test_bindings_without_libraries_are_said_in_words(version: str) -> None:
    done = _run(version, _ERRORS, libraries=False)
    kind, code, message, why, hint = done.stdout.strip().split("|")
    assert (kind, code) == ("DeviceError", "3"), done.stderr
    assert message.startswith("TensorRT's Python bindings are installed, but not the library libnv")
    assert "cannot open shared object file" in why
    assert "rtda-deploy[tensorrt-cu12]" in hint and "LD_LIBRARY_PATH" in hint


@pytest.mark.system
@pytest.mark.parametrize("version", GENERATIONS)
def test_a_machine_without_a_driver_is_said_in_words(version: str) -> None:
    done = _run(version, _ERRORS)
    kind, code, message, why, hint = done.stdout.strip().split("|")
    assert (kind, code) == ("DeviceError", "3"), done.stderr
    assert message == f"TensorRT {version} found no GPU it can use"
    assert "factory function returned nullptr" in why and "nvidia-smi" in hint
