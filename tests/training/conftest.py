from __future__ import annotations

from pathlib import Path

import pytest
from narrow import narrow_networks

narrow_networks()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of data sets."""
    monkeypatch.setenv("RTDA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"
