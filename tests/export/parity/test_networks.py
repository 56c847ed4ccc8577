"""Every network goes the whole way: checkpoint, inspection, ONNX, scores; each at the sizes that it takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

from rtda_deploy.cli.inspect import describe_file  # noqa: E402
from rtda_deploy.errors import ConfigError  # noqa: E402
from rtda_export import export_model, onnx_from_checkpoint, verify  # noqa: E402
from rtda_export.parity.scoring import evaluate  # noqa: E402
from rtda_training.models import build_network, count_parameters  # noqa: E402
from rtda_training.readers import open_labelled  # noqa: E402


def test_inspect_says_which_network_it_is(checkpoint: Path, exported: Path, variant: str, workshop: Any) -> None:
    architecture = workshop.architectures[variant]
    found = describe_file(checkpoint)
    assert found["spec"]["provenance"]["architecture"] == architecture
    with torch.device("meta"):
        assert found["parameters"] == count_parameters(build_network(architecture, num_classes=5))
    assert found["macs"] > 1e7
    assert describe_file(exported)["output_shape"] == [1, 5, 8, 8]


def test_a_checkpoint_and_its_onnx_score_alike(checkpoint: Path, exported: Path, tiny_data: Path) -> None:
    data = open_labelled(f"folder:{tiny_data}")
    ours, theirs = (evaluate(model, data, max_pictures=2) for model in (checkpoint, exported))
    assert (ours.confusion == theirs.confusion).all()
    assert ours.confusion.sum() > 0


def test_a_dilated_network_is_exported_at_any_multiple_of_8(workshop: Any, tmp_path: Path) -> None:
    checkpoint = workshop.checkpoint(tmp_path, "deeplab-v2")
    path = onnx_from_checkpoint(checkpoint, tmp_path / "odd.onnx", size_hw=(40, 72))
    outputs = onnx.load(str(path)).graph.output[0].type.tensor_type.shape.dim
    assert [side.dim_value for side in outputs] == [1, 5, 5, 9]
    assert verify(checkpoint, path, workshop.frames(1), size_hw=(40, 72)).relative < 1e-5


@pytest.mark.parametrize(("name", "nearest"), [("deeplab-v2", "--size 104x40"), ("fcn8s", "--size 96x32")])
def test_a_size_that_the_network_does_not_take_is_refused_before_any_work(
    workshop: Any, tmp_path: Path, name: str, nearest: str
) -> None:
    checkpoint = workshop.checkpoint(tmp_path, name)
    workshop.store_frames(tmp_path / "verify", 1)
    told: list[Any] = []
    for export in (
        lambda: onnx_from_checkpoint(checkpoint, tmp_path / "m.onnx", size_hw=(42, 100)),
        lambda: export_model(checkpoint, size_hw=(42, 100), on_step=told.append),
    ):
        with pytest.raises(ConfigError, match="size 100x42") as caught:
            export()
        assert nearest in caught.value.hint
    assert told == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.pth", "verify"]


@pytest.mark.parametrize("name", ["deeplab-v2", "fcn8s"])
def test_export_model_writes_and_verifies_it(workshop: Any, tmp_path: Path, name: str) -> None:
    checkpoint = workshop.checkpoint(tmp_path, name)
    workshop.store_frames(tmp_path / "verify", 2)
    result = export_model(checkpoint, size_hw=(64, 96))
    assert result.parity is not None and result.parity.passed and result.parity.agreement == 1.0
    assert result.spec.size_hw == (64, 96)
