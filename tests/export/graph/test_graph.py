"""The ONNX a checkpoint becomes: same answers, plain operators, the contract inside."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

from rtda_deploy.errors import ConfigError, ExportError, FileAccessError  # noqa: E402
from rtda_deploy.files import sha256_file  # noqa: E402
from rtda_deploy.onnx_file import SPEC_KEY  # noqa: E402
from rtda_deploy.spec import ModelSpec  # noqa: E402
from rtda_export import onnx_from_checkpoint, verify  # noqa: E402
from rtda_export.graph.fold import fold_batchnorms  # noqa: E402
from rtda_export.graph.from_torch import IR_VERSION, read_onnx  # noqa: E402

# What TensorRT 8.5 (JetPack 5) turns into plain layers, without plugins, shape tensors or loops.
TENSORRT_8_5 = {
    "Add",
    "Clip",
    "Concat",
    "Constant",
    "Conv",
    "GlobalAveragePool",
    "MaxPool",
    "Mul",
    "Relu",
    "Resize",
    "Sigmoid",
}


def test_torch_and_onnx_give_the_same_logits_and_masks(checkpoint: Path, exported: Path, workshop: Any) -> None:
    report = verify(checkpoint, exported, workshop.frames(3))
    assert report.relative < 1e-5  # ten times below the limit of 1e-4: only the order of float32 additions differs
    assert report.agreement == 1.0
    assert report.logit_range > 0.1  # the comparison would be empty if all logits were alike
    assert sum(entry.pixels > 0 for entry in report.classes) >= 2


def test_folding_the_batch_norms_changes_nothing_but_rounding(variant: str, workshop: Any) -> None:
    model = workshop.model(variant)
    view, folded = model.deploy_view(), model.deploy_view()
    image = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    norms = sum(isinstance(module, torch.nn.BatchNorm2d) for module in view.modules())
    assert fold_batchnorms(folded, torch.zeros(1, 3, 64, 64)) == norms
    assert norms > 15 or variant == "fcn8s", "only VGG-16 has none"
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())
    assert all(parameter.dtype == torch.float32 for parameter in folded.parameters())
    with torch.no_grad():
        before, after = view(image), folded(image)
    assert float((before - after).abs().max()) < 1e-5 * float(before.max() - before.min())


def test_a_convolution_used_twice_keeps_its_batch_norm() -> None:
    class Shared(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 3, 1)
            self.bn = torch.nn.BatchNorm2d(3)
            self.alone = torch.nn.BatchNorm2d(3)
            self.bn.running_mean.fill_(0.5)

        def forward(self, x: Any) -> Any:
            return self.alone(self.conv(self.bn(self.conv(x))).relu())

    network = Shared().eval()
    image = torch.ones(1, 3, 4, 4)
    with torch.no_grad():
        before = network(image)
        assert fold_batchnorms(network, image) == 0
        assert torch.equal(network(image), before)


def test_a_convolution_that_others_read_too_keeps_what_they_read() -> None:
    class Forked(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 3, 1)
            self.bn = torch.nn.BatchNorm2d(3)
            self.relu = torch.nn.ReLU(inplace=True)
            self.second = torch.nn.Conv2d(3, 3, 1)
            self.behind = torch.nn.BatchNorm2d(3)
            self.bn.running_mean.fill_(0.5)
            self.behind.running_mean.fill_(0.5)

        def forward(self, x: Any) -> Any:
            found = self.conv(x)
            return self.bn(found) + found + self.behind(self.relu(self.second(x)))

    network = Forked().eval()
    image = torch.randn(1, 3, 4, 4)
    with torch.no_grad():
        before = network(image)
        assert fold_batchnorms(network, image) == 0
        assert torch.equal(network(image), before)


def test_the_graph_has_only_operators_that_tensorrt_8_5_parses(exported: Path) -> None:
    model = onnx.load(str(exported))
    assert {node.op_type for node in model.graph.node} <= TENSORRT_8_5
    for node in model.graph.node:
        if (
            node.op_type == "Resize"
        ):  # a constant scale: sizes computed by shape arithmetic are what TensorRT 8 chokes on
            assert len(node.input) == 3 and node.input[2]
    names = {weight.name for weight in model.graph.initializer}
    first = {f"backbone.{name}.weight" for name in ("conv1", "features.0", "_conv_stem")}
    assert names & first  # names a person can find in the network
    assert names <= {name for node in model.graph.node for name in node.input}


def test_equal_weights_are_shared_without_detours(tmp_path: Path, workshop: Any) -> None:
    def equal_biases(model: Any) -> None:  # torch's exporter merges them and leads them through Identity nodes
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.zero_()
                module.bias.zero_()

    checkpoint = workshop.checkpoint(tmp_path, change=equal_biases)
    path = onnx_from_checkpoint(checkpoint, tmp_path / "shared.onnx")
    assert {node.op_type for node in onnx.load(str(path)).graph.node} <= TENSORRT_8_5
    assert verify(checkpoint, path, workshop.frames(1)).relative < 1e-5


def test_shape_opset_and_ir_version_are_what_every_target_reads(exported: Path) -> None:
    model = onnx.load(str(exported))
    assert model.ir_version == IR_VERSION == 8
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 17)]
    shapes = {
        value.name: [side.dim_value for side in value.type.tensor_type.shape.dim]
        for value in [*model.graph.input, *model.graph.output]
    }
    assert shapes == {"image": [1, 3, 64, 64], "logits": [1, 5, 8, 8]}


@pytest.mark.parametrize("opset", [11, 13])
def test_an_older_opset_gives_the_same_answers(one_checkpoint: Path, tmp_path: Path, workshop: Any, opset: int) -> None:
    path = onnx_from_checkpoint(one_checkpoint, tmp_path / "old.onnx", opset=opset)
    assert onnx.load(str(path)).opset_import[0].version == opset
    assert verify(one_checkpoint, path, workshop.frames(1)).relative < 1e-5


def test_the_spec_travels_with_its_provenance(exported: Path, checkpoint: Path, variant: str, workshop: Any) -> None:
    entries = {entry.key: entry.value for entry in onnx.load(str(exported)).metadata_props}
    spec = ModelSpec.from_json(entries[SPEC_KEY])
    assert spec.class_names == ("road", "car", "tree", "sky", "person")
    assert spec.size_hw == (64, 64)
    assert spec.provenance["architecture"] == workshop.architectures[variant]
    assert spec.provenance["parent_sha256"] == sha256_file(checkpoint)
    assert spec.provenance["export"]["opset"] == 17
    assert set(spec.provenance["export"]["versions"]) == {"rtda-deploy", "torch", "onnx"}


def test_the_same_checkpoint_gives_the_same_bytes_and_no_paths(
    one_checkpoint: Path, one_onnx: Path, tmp_path: Path
) -> None:
    again = onnx_from_checkpoint(one_checkpoint, tmp_path / "again.onnx")
    assert sha256_file(again) == sha256_file(one_onnx)
    content = again.read_bytes()
    assert str(one_checkpoint.parent).encode() not in content
    assert b".py" not in content  # no stack traces of whoever exported it


def test_export_says_nothing_on_its_own(
    one_checkpoint: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        onnx_from_checkpoint(one_checkpoint, tmp_path / "m.onnx")
    assert capfd.readouterr() == ("", "")


def test_another_size_that_is_a_multiple_of_32_works(one_checkpoint: Path, tmp_path: Path, workshop: Any) -> None:
    path = onnx_from_checkpoint(one_checkpoint, tmp_path / "wide.onnx", size_hw=(32, 96))
    report = verify(one_checkpoint, path, workshop.frames(1), size_hw=(32, 96))
    assert report.relative < 1e-5
    spec = ModelSpec.from_json(read_onnx(path).metadata_props[0].value)
    assert spec.size_hw == (32, 96)


def test_another_size_is_refused_with_the_nearest_that_works(one_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="1000x500") as caught:
        onnx_from_checkpoint(one_checkpoint, tmp_path / "m.onnx", size_hw=(500, 1000))
    assert "--size 992x512" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("opset", [10, 18, 0])
def test_an_opset_that_not_every_target_reads_is_refused(one_checkpoint: Path, tmp_path: Path, opset: int) -> None:
    with pytest.raises(ConfigError, match=f"opset {opset}") as caught:
        onnx_from_checkpoint(one_checkpoint, tmp_path / "m.onnx", opset=opset)
    assert "--opset 17" in caught.value.hint


def test_a_place_that_cannot_be_written_is_named(one_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(FileAccessError, match=r"cannot write .*file.m\.onnx"):
        onnx_from_checkpoint(one_checkpoint, tmp_path / "file" / "m.onnx")


def test_a_truncated_onnx_is_refused_without_a_traceback_of_protobuf(one_onnx: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(one_onnx.read_bytes()[:100_000])
    with pytest.raises(ExportError, match=r"cut\.onnx is no valid ONNX model") as caught:
        read_onnx(cut)
    assert "copied" in caught.value.hint


MASK_OPERATORS = {"ArgMax", "Cast", "ReduceMax", "Softmax"}  # TensorRT 8.5 parses these too


def test_a_mask_is_made_in_the_graph_as_the_runtime_makes_it(
    checkpoint: Path, exported: Path, tmp_path: Path, workshop: Any
) -> None:
    path = onnx_from_checkpoint(checkpoint, tmp_path / "mask.onnx", output="mask")
    model = onnx.load(str(path))
    (output,) = model.graph.output
    assert output.name == "mask" and output.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert [side.dim_value for side in output.type.tensor_type.shape.dim] == [1, 64, 64]
    assert {node.op_type for node in model.graph.node} <= TENSORRT_8_5 | MASK_OPERATORS
    for reference in (checkpoint, exported):
        report = verify(reference, path, workshop.frames(3))
        assert report.agreement == 1.0 and report.max_abs is None and report.relative is None
    assert ModelSpec.from_json(model.metadata_props[0].value).output == "mask"


def test_uint8_is_made_of_float_because_tensorrt_8_5_makes_it_of_nothing_else(
    one_checkpoint: Path, tmp_path: Path
) -> None:
    graph = onnx.shape_inference.infer_shapes(
        onnx.load(str(onnx_from_checkpoint(one_checkpoint, tmp_path / "mask.onnx", output="mask")))
    ).graph
    types = {value.name: value.type.tensor_type.elem_type for value in graph.value_info}
    (last,) = [node for node in graph.node if "mask" in node.output]
    assert last.op_type == "Cast" and types[last.input[0]] == onnx.TensorProto.FLOAT


def test_confidence_is_the_winners_softmax_probability(one_checkpoint: Path, one_onnx: Path, tmp_path: Path) -> None:
    np = pytest.importorskip("numpy")
    ort = pytest.importorskip("onnxruntime")
    path = onnx_from_checkpoint(one_checkpoint, tmp_path / "mask.onnx", output="mask", confidence=True)
    image = np.random.default_rng(0).standard_normal((1, 3, 64, 64)).astype(np.float32)
    mask, confidence = ort.InferenceSession(str(path)).run(None, {"image": image})
    (logits,) = ort.InferenceSession(str(one_onnx)).run(None, {"image": image})
    large = torch.nn.functional.interpolate(torch.from_numpy(logits), scale_factor=8, mode="bilinear")
    probability = torch.softmax(large, 1)[0]
    assert confidence.dtype == np.float32 and confidence.shape == mask.shape == (1, 64, 64)
    np.testing.assert_allclose(confidence[0], probability.max(0).values.numpy(), atol=1e-5)
    assert (mask[0] == probability.argmax(0).numpy()).mean() > 0.999


@pytest.mark.parametrize("output", ["logits", "mask"])
def test_several_pictures_at_a_time_are_each_answered_in_their_place(
    checkpoint: Path, tmp_path: Path, workshop: Any, output: str
) -> None:
    path = onnx_from_checkpoint(checkpoint, tmp_path / "three.onnx", batch=3, output=output)
    shape = onnx.load(str(path)).graph.input[0].type.tensor_type.shape
    assert [side.dim_value for side in shape.dim] == [3, 3, 64, 64]
    report = verify(checkpoint, path, workshop.frames(4))  # the fourth stands in the first place again
    assert report.agreement == 1.0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"output": "boxes"}, "unknown output 'boxes'"),
        ({"confidence": True}, "a confidence goes with a mask only"),
        ({"batch": 0}, "a batch of 0"),
        ({"output": "mask", "confidence": True, "opset": 11}, "needs opset 13"),
    ],
)
def test_outputs_that_make_no_sense_are_refused(
    one_checkpoint: Path, tmp_path: Path, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        onnx_from_checkpoint(one_checkpoint, tmp_path / "m.onnx", **options)
    assert not list(tmp_path.iterdir())
