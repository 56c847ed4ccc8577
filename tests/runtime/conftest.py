from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from patience import PATIENCE_S

pytest.register_assert_rewrite("runtime.engine_contract", "runtime.source_contract")

from runtime.models import tiny_spec, write_model  # noqa: E402

from rtda_deploy.spec import ModelSpec  # noqa: E402
from rtda_runtime.pipeline.options import Patience  # noqa: E402


@pytest.fixture()
def spec() -> ModelSpec:
    return tiny_spec()


@pytest.fixture(scope="session")
def model_path(tmp_path_factory: Any) -> Path:
    """The tiny network giving logits; not to be changed."""
    return write_model(tmp_path_factory.mktemp("model") / "tiny.onnx")


@pytest.fixture(autouse=True)
def nothing_is_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    """close() waits for a thread that a busy machine keeps from its end; tests of stuck threads set a limit."""
    monkeypatch.setattr("rtda_runtime.Pipeline.patience", Patience(stop_s=PATIENCE_S))
    for module in ("sources.reconnect", "sinks.view.server", "ros.worker"):
        monkeypatch.setattr(f"rtda_runtime.{module}._STOP_S", PATIENCE_S)
