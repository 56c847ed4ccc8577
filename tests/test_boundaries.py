"""Who may import whom, and what a light import must not load (ARCHITECTURE.md: Who may import whom)."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path
from typing import Dict, Iterator, List, Set, Tuple

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = {
    "rtda_deploy": ROOT / "rtda_deploy",
    "rtda_training": ROOT / "training" / "rtda_training",
    "rtda_export": ROOT / "export" / "rtda_export",
    "rtda_runtime": ROOT / "runtime" / "rtda_runtime",
}
HEAVY = {"av", "cv2", "lightning_fabric", "matplotlib", "onnx", "onnxruntime", "openvino", "ray", "tensorrt", "torch"}
SHARED = {
    "rtda_deploy.border",
    "rtda_deploy.card",
    "rtda_deploy.engine_file",
    "rtda_deploy.errors",
    "rtda_deploy.familiar",
    "rtda_deploy.files",
    "rtda_deploy.folders",
    "rtda_deploy.json_lines",
    "rtda_deploy.lazy",
    "rtda_deploy.masking",
    "rtda_deploy.model_files",
    "rtda_deploy.onnx_file",
    "rtda_deploy.optional",
    "rtda_deploy.overwriting",
    "rtda_deploy.own_masks",
    "rtda_deploy.pictures",
    "rtda_deploy.pictures.content_kind",
    "rtda_deploy.pictures.decode",
    "rtda_deploy.pictures.dhash",
    "rtda_deploy.pictures.tiff_tags",
    "rtda_deploy.pictures.whole",
    "rtda_deploy.protobuf",
    "rtda_deploy.report",
    "rtda_deploy.run_folders",
    "rtda_deploy.sizes",
    "rtda_deploy.spec",
    "rtda_deploy.telemetry",
}
# The folders at the top; tools/ holds what the Makefile starts before anything is installed.
FOLDERS = {"benchmarks", "docker", "docs", "export", "rtda_deploy", "runtime", "tests", "tools", "training"}

# What ARCHITECTURE.md promises to run on a robot: Python 3.8, no torch, no onnx.
ROBOT_ROOTS = (
    "rtda_deploy",
    "rtda_export.export",
    "rtda_export.graph.allowed",
    "rtda_export.options",
    "rtda_export.overwrite",
    "rtda_export.parity",
    "rtda_export.precision",
    "rtda_export.programs",
    "rtda_export.remarks",
    "rtda_export.request",
    "rtda_export.steps",
    "rtda_export.tensorrt",
    "rtda_runtime",
    "rtda_training.data.address",
    "rtda_training.data.readers.kinds",
    "rtda_training.judge",
    "rtda_training.labels",
    "rtda_training.metrics",
    "rtda_training.pages.sheets",
    "rtda_training.readers",
)


def _modules() -> Dict[str, Path]:
    """Every module of the four packages by its name."""
    found = {}
    for package, folder in PACKAGES.items():
        for path in sorted(folder.rglob("*.py")):
            parts = list(path.relative_to(folder).with_suffix("").parts)
            if parts[-1] == "__init__":
                parts.pop()
            if parts[-1:] != ["__main__"]:
                found[".".join([package, *parts])] = path
    return found


MODULES = _modules()
ROBOT = sorted(
    name
    for name in MODULES
    for root in ROBOT_ROOTS
    if (name == root or name.startswith(f"{root}.")) and not name.startswith("rtda_deploy.cli")
)


def _absolute(path: Path, node: ast.ImportFrom) -> str:
    """The module that ``from x import`` or ``from .x import`` means."""
    if not node.level:
        return str(node.module)
    package = next(name for name, other in MODULES.items() if other == path).split(".")
    package = package[: len(package) - node.level + (path.name == "__init__.py")]
    return ".".join([*package, *([node.module] if node.module else [])])


def _imports(path: Path) -> Iterator[Tuple[str, int, bool]]:
    """Every module that a file imports, wherever in the file; with the line, and whether only for type checkers."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for_types: Set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            for_types.update(inner for statement in node.body for inner in ast.walk(statement))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno, node in for_types
        elif isinstance(node, ast.ImportFrom):
            module = _absolute(path, node)
            for alias in node.names:
                full = f"{module}.{alias.name}"
                yield (full if full in MODULES else module), node.lineno, node in for_types
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            name = node.value.partition(":")[0]
            if name in MODULES:  # "module:name" of a lazy import
                yield name, node.lineno, node in for_types


FOOTAGE = "rtda_runtime.sources.footage."  # where recordings are decoded, for the robot and for training


def _may(importer: str, imported: str) -> bool:
    mine, other = importer.partition(".")[0], imported.partition(".")[0]
    if imported == "rtda_deploy.cli" or imported.startswith("rtda_deploy.cli."):
        return importer.startswith("rtda_deploy.cli") or importer == "rtda_deploy.__main__"
    if mine == "rtda_deploy":
        if importer == "rtda_deploy" or importer.startswith("rtda_deploy.cli"):
            return True
        return other == "rtda_deploy"
    if other == mine or imported in SHARED or imported == "rtda_deploy":
        return True
    if f"{importer}.".startswith("rtda_training.data.") and f"{imported}.".startswith(FOOTAGE):
        return True
    return mine == "rtda_export" and other in ("rtda_training", "rtda_runtime")


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_go_only_where_the_design_says(package: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {imported}"
        for name, path in MODULES.items()
        if name.partition(".")[0] == package
        for imported, line, _ in _imports(path)
        if imported.partition(".")[0] in PACKAGES and not _may(name, imported)
    ]
    assert not wrong, "\n".join(wrong)


# Rooms of a package, and all that each may import of it: what is below, never what is built on top.
BELOW = {
    "rtda_runtime.engines": (
        "rtda_runtime.engines",
        "rtda_runtime.kinds",
        "rtda_runtime.machine",
        "rtda_runtime.mask",
    ),
    "rtda_runtime.machine": ("rtda_runtime.machine", "rtda_runtime.records"),
    "rtda_runtime.mask": ("rtda_runtime.mask", "rtda_runtime._opencv"),
    "rtda_runtime.sources": (
        "rtda_runtime.sources",
        "rtda_runtime.kinds",
        "rtda_runtime.threads",
        "rtda_runtime._opencv",
    ),
    "rtda_runtime.threads": ("rtda_runtime.threads",),
    "rtda_training.data": ("rtda_training.data", "rtda_training.labels", "rtda_training.readers"),
    "rtda_training.judge": (
        "rtda_training.judge",
        "rtda_training.labels",
        "rtda_training.metrics",
        "rtda_training.readers",
    ),
    "rtda_training.models": ("rtda_training.models", "rtda_training.torch_file"),
}


@pytest.mark.parametrize("room", BELOW)
def test_a_room_imports_nothing_that_is_built_on_it(room: str) -> None:
    upward = [
        f"{path.relative_to(ROOT)}:{line} imports {imported}"
        for name, path in MODULES.items()
        if f"{name}.".startswith(f"{room}.")
        for imported, line, _ in _imports(path)
        if imported.startswith(f"{room.partition('.')[0]}.") and not f"{imported}.".startswith(_dotted(BELOW[room]))
    ]
    assert not upward, "\n".join(upward)


def _dotted(names: Tuple[str, ...]) -> Tuple[str, ...]:
    return tuple(f"{name}." for name in names)


def test_the_rule_itself_tells_right_from_wrong() -> None:
    assert _may("rtda_export.graph.from_torch", "rtda_training.checkpoint")
    assert _may("rtda_runtime.pipeline.pipeline", "rtda_deploy.errors")
    assert _may("rtda_deploy.cli.run.verb", "rtda_runtime")
    assert not _may("rtda_runtime.pipeline.pipeline", "rtda_training.labels")
    assert not _may("rtda_training.trainer", "rtda_runtime")
    assert _may("rtda_training.data.readers.footage", "rtda_runtime.sources.footage")
    assert not _may("rtda_training.trainer", "rtda_runtime.sources.footage")
    assert not _may("rtda_training.data.address", "rtda_runtime.sources.stream")
    assert not _may("rtda_training.trainer", "rtda_deploy.cli.terminal.console")
    assert not _may("rtda_runtime.pipeline.pipeline", "rtda_export")
    assert not _may("rtda_deploy.spec", "rtda_runtime")


def test_shared_modules_use_the_standard_library_alone() -> None:
    outside = [
        f"{name}:{line} imports {imported}"
        for name in sorted(SHARED)
        for imported, line, _ in _imports(MODULES[name])
        if imported.partition(".")[0] not in sys.stdlib_module_names | {"rtda_deploy"}
    ]
    assert not outside, "\n".join(outside)


def test_the_architecture_page_lists_the_shared_modules() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    table = text.partition("**Shared modules")[2].partition("## ")[0]
    listed = {f"rtda_deploy.{name}" for name in re.findall(r"`([\w.]+)`", table.partition("| idea |")[2])}
    packages = {name for name in SHARED if MODULES[name].name == "__init__.py"}
    assert listed == SHARED - packages
    assert {name for name in MODULES if name.startswith("rtda_deploy.") and ".cli" not in name} == SHARED


def test_the_runtime_never_names_torch() -> None:
    for name in MODULES:
        if name.startswith("rtda_runtime"):
            named = {imported.partition(".")[0] for imported, _, _ in _imports(MODULES[name])}
            assert not named & {"torch", "onnx", "lightning_fabric"}, name


def test_no_stage_imports_the_terminal() -> None:
    for name in MODULES:
        if not name.startswith("rtda_deploy.cli"):
            named = {imported.partition(".")[0] for imported, _, _ in _imports(MODULES[name])}
            assert not named & {"typer", "rich", "click"}, name


@pytest.mark.parametrize(
    "program",
    [
        "import rtda_deploy",
        "import rtda_deploy.spec, rtda_deploy.errors, rtda_deploy.files, rtda_deploy.optional, rtda_deploy.report",
        "import rtda_runtime",
        "import rtda_export",
        "import rtda_training, rtda_training.run",
        "import rtda_deploy.cli.app; rtda_deploy.cli.app.build_app()",
        "import sys; sys.argv = ['rtda-deploy', '--help']; import rtda_deploy.cli; rtda_deploy.cli.main()",
        "import sys; sys.argv = ['rtda-deploy', 'train', '--help']; import rtda_deploy.cli; rtda_deploy.cli.main()",
        "import sys; sys.argv = ['rtda-deploy', 'run', '--help']; import rtda_deploy.cli; rtda_deploy.cli.main()",
        "import sys; sys.argv = ['rtda-deploy', '--version']; import rtda_deploy.cli; rtda_deploy.cli.main()",
        "import sys; sys.argv = ['rtda-deploy', 'train', '--list']; import rtda_deploy.cli; rtda_deploy.cli.main()",
        "import rtda_training.plan as plan, contextlib, rtda_deploy.errors as errors\n"
        "with contextlib.suppress(errors.ConfigError): plan.load_plan('fda-lihgt')",
    ],
)
def test_a_light_start_loads_nothing_heavy(program: str) -> None:
    code = (
        "import atexit, sys\n"
        "atexit.register(lambda: print('LOADED', *sorted({name.split('.')[0] for name in sys.modules})))\n" + program
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "LOADED" in loaded
    assert not loaded & HEAVY


def test_help_reads_the_tables_and_nothing_that_opens_a_file() -> None:
    code = "import sys; import rtda_deploy.cli.app; rtda_deploy.cli.app.build_app(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"rtda_deploy.files", "rtda_deploy.masking", "rtda_deploy.spec"} & set(done.stdout.split())


_NUMPY_ALONE = """
import importlib, importlib.abc, sys
sys.dont_write_bytecode = True
allowed = set(sys.stdlib_module_names) | {"numpy", *OURS}

class OnlyNumpy(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] not in allowed:
            raise ModuleNotFoundError(f"{name} is not on the robot", name=name)
        return None

import numpy  # its own lazy imports see the whole environment
sys.meta_path.insert(0, OnlyNumpy())
for name in NAMES:
    module = importlib.import_module(name)
    for public in getattr(module, "__all__", ()):
        if name not in LAZY:
            getattr(module, public)
print("imported", len(NAMES))
"""


def test_the_robots_side_imports_with_numpy_alone() -> None:
    assert any(name.startswith("rtda_runtime.engines") for name in ROBOT)
    assert {
        "rtda_export.parity",
        "rtda_training.labels",
        "rtda_training.metrics",
        "rtda_training.readers",
    } < set(ROBOT)
    lazy = ["rtda_deploy"]  # its names lead to any stage
    head = f"OURS, NAMES, LAZY = {sorted(PACKAGES)!r}, {ROBOT!r}, {lazy!r}\n"
    done = subprocess.run([sys.executable, "-c", head + _NUMPY_ALONE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"imported {len(ROBOT)}\n"


def _needed_at_import(names: List[str]) -> Set[str]:
    """The modules of ours that importing these loads, by following imports at the top of each file."""
    seen: Set[str] = set()
    pending = list(names)
    while pending:
        name = pending.pop()
        if name in seen or name not in MODULES:
            continue
        seen.add(name)
        pending += [name.rpartition(".")[0]]
        tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
        for node in tree.body:
            if isinstance(node, ast.Import):
                pending += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                module = _absolute(MODULES[name], node)
                pending += [module, *(f"{module}.{alias.name}" for alias in node.names)]
    return seen


def test_the_robots_side_is_written_in_python_3_8() -> None:
    """Syntax only; that it also runs is shown under a real Python 3.8 by ``make test-system``."""
    robot_cli = [name for name in MODULES if name.startswith("rtda_deploy.cli")]
    for name in sorted(_needed_at_import([*ROBOT, *robot_cli])):
        ast.parse(MODULES[name].read_text(encoding="utf-8"), filename=name, feature_version=(3, 8))


def test_no_type_of_the_robots_side_is_subscripted_when_it_is_imported() -> None:
    """``list[int]`` and ``collections.abc.Callable[...]`` outside of annotations are errors before Python 3.9."""
    for name in ROBOT:
        tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
        newer = {"dict", "frozenset", "list", "set", "tuple", "type"}
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module == "collections.abc":
                newer |= {alias.name for alias in node.names}
        values = [node.value for node in tree.body if isinstance(node, ast.Assign)]
        found = [node.value for value in values for node in ast.walk(value) if isinstance(node, ast.Subscript)]
        assert not [node.id for node in found if isinstance(node, ast.Name) and node.id in newer], name


@pytest.mark.parametrize("name", [name for name, path in MODULES.items() if path.name == "__init__.py"])
def test_public_names_are_sorted_and_there(name: str) -> None:
    module = importlib.import_module(name)
    public = getattr(module, "__all__", None)
    if public is None:
        assert not _defines_anything(MODULES[name]), f"{name} defines names and has no __all__"
        return
    assert list(public) == sorted(public, key=_constants_then_classes_then_the_rest)
    assert len(set(public)) == len(public)
    for entry in public:
        assert getattr(module, entry) is not None


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("rtda_runtime.engines", "PROVIDERS"),
        ("rtda_runtime.sources", "mask_password"),
        ("rtda_runtime.classes", "RegionOfInterest"),
        ("rtda_training.readers", "kinds"),
    ],
)
def test_a_name_that_was_public_is_public(module: str, name: str) -> None:
    """Nothing here uses these; programs written for the version before the rooms may."""
    assert name in importlib.import_module(module).__all__
    assert getattr(importlib.import_module(module), name)


@pytest.mark.parametrize("package", PACKAGES)
def test_no_public_name_is_also_a_module(package: str) -> None:
    """``from package import name`` would give the one or the other, depending on what was imported before."""
    for name, path in MODULES.items():
        if name.partition(".")[0] == package and path.name == "__init__.py":
            public = getattr(importlib.import_module(name), "__all__", ())
            assert not [entry for entry in public if f"{name}.{entry}" in MODULES], name


@pytest.mark.parametrize("package", PACKAGES)
def test_each_module_says_what_is_public(package: str) -> None:
    for name, path in MODULES.items():
        if name.partition(".")[0] != package or path.name == "__init__.py":
            continue
        public = [
            ast.literal_eval(node.value)
            for node in ast.parse(path.read_text(encoding="utf-8")).body
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
        ]
        assert len(public) == 1, f"{name} has no __all__"
        defined = set(_names_defined(path))
        assert set(public[0]) <= defined, f"{name}: {set(public[0]) - defined} is in __all__ and not defined"


@pytest.mark.parametrize("package", PACKAGES)
def test_each_package_is_typed(package: str) -> None:
    assert (PACKAGES[package] / "py.typed").is_file()


def test_top_level_folders_are_those_of_the_design() -> None:
    try:
        listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("git is not installed, so tracked files cannot be told from others")
    if listed.returncode != 0:
        pytest.skip(f"not a git work tree: {listed.stderr.strip()}")
    folders = {path.partition("/")[0] for path in listed.stdout.splitlines() if "/" in path}
    assert {folder for folder in folders if not folder.startswith(".")} <= FOLDERS
    assert set(PACKAGES) & folders == {"rtda_deploy"}


def test_there_is_no_utils_module() -> None:
    assert not [name for name in MODULES if name.rpartition(".")[2] in ("utils", "util", "helpers", "common", "misc")]


def _constants_then_classes_then_the_rest(name: str) -> Tuple[int, str]:
    """The order that ruff's RUF022 keeps."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2), name


def _defines_anything(path: Path) -> bool:
    kinds = (ast.FunctionDef, ast.ClassDef, ast.Assign)
    return any(isinstance(node, kinds) for node in ast.parse(path.read_text(encoding="utf-8")).body)


def _names_defined(path: Path) -> Iterator[str]:
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.Assign):
            for target in node.targets:
                yield from (inner.id for inner in ast.walk(target) if isinstance(inner, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            yield from (alias.asname or alias.name for alias in node.names)
        elif isinstance(node, (ast.If, ast.Try)):
            yield from (inner.asname or inner.name for inner in ast.walk(node) if isinstance(inner, ast.alias))
