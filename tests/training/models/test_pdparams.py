"""Paddle's .pdparams: what its names say is loaded, and nothing in a stranger's file runs."""

from __future__ import annotations

import collections
import os
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from training.models.test_models_ppliteseg import paddle_checkpoint

from rtda_deploy.errors import CheckpointError, FileAccessError
from rtda_training.checkpoint import model_from_checkpoint, read_checkpoint
from rtda_training.models import build_network, load_backbone_weights
from rtda_training.models.pdparams_file import read_pdparams
from rtda_training.models.state_dicts import read_weights

torch.set_num_threads(1)

TABLE = "StructuredToParameterName@@"  # what Paddle keeps its own names under, beside the arrays


def write(path: Path, content: Any, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_arrays_of_every_kind_and_protocol_come_as_they_are(tmp_path: Path, protocol: int) -> None:
    rng = np.random.default_rng(0)
    arrays = {
        "a.weight": rng.standard_normal((4, 3, 2, 2)).astype(np.float32),
        "a.fortran": np.asfortranarray(rng.standard_normal((3, 5)).astype(np.float32)),
        "a.turned": rng.standard_normal(6).astype(">f4"),
        "a.count": np.array(7, np.int64),
        "a.half": rng.standard_normal(3).astype(np.float16),
        "a.none": np.zeros((0, 3), np.float32),
    }
    names = dict.fromkeys(arrays, "conv2d_0.w_0")
    named = {"a.named": ("conv2d_1.w_0", np.ones(2, np.float32))}
    content = collections.OrderedDict({**arrays, **named, TABLE: names, "epoch": 3})
    found = read_pdparams(write(tmp_path / "m.pdparams", content, protocol))
    assert set(found) == {*arrays, "a.named"}
    for name, array in {**arrays, "a.named": named["a.named"][1]}.items():
        np.testing.assert_array_equal(found[name].numpy(), array)
        assert (
            found[name].shape == array.shape
            and found[name].dtype == torch.from_numpy(array.astype(array.dtype.newbyteorder("="))).dtype
        )
    assert set(read_weights(tmp_path / "m.pdparams")) == set(found)


@pytest.mark.usefixtures("published_width")
def test_a_file_of_paddleseg_is_a_checkpoint(tmp_path: Path) -> None:
    tensors = {name: tensor.float() for name, tensor in paddle_checkpoint("t").items()}
    content: dict[str, Any] = {name: tensor.numpy() for name, tensor in tensors.items()}
    path = write(tmp_path / "ppliteseg.pdparams", {**content, TABLE: dict.fromkeys(content, "x")})
    found = read_checkpoint(path)
    assert found.spec.provenance["lineage"] == "ppliteseg" and found.spec.mean == (0.5, 0.5, 0.5)
    assert model_from_checkpoint(found).architecture["variant"] == "t"
    np.testing.assert_array_equal(found.weights["head.classifier.weight"], tensors["seg_heads.0.conv_out.weight"])
    lacking = {name: array for name, array in content.items() if name != "seg_heads.0.conv_out.weight"}
    with pytest.raises(CheckpointError, match=r"ppliteseg.pdparams"):
        read_checkpoint(write(path, lacking))


@pytest.mark.usefixtures("published_width")
def test_a_backbones_file_of_paddle_loads_whole_and_says_what_it_is_where_it_does_not_fit(tmp_path: Path) -> None:
    prefix = "backbone."
    arrays = {
        name: tensor.float().numpy() for name, tensor in paddle_checkpoint("t").items() if name.startswith(prefix)
    }
    path = write(tmp_path / "stdc1.pdparams", {name[len(prefix) :]: array for name, array in arrays.items()})
    network = build_network("ppliteseg")
    report = load_backbone_weights(network, path)
    assert report.matched == report.total and not report.random
    norm = network.backbone.state_dict()["features.0.bn.running_var"]
    np.testing.assert_array_equal(norm, arrays["backbone.features.0.bn._variance"])
    for other, fix in (
        (build_network("ddrnet"), "--set network=bisenet --set backbone=stdc1, as DDRNet has none of it"),
        (build_network("bisenet"), "file of stdc1: --set backbone=stdc1, or give one of resnet18"),
    ):
        with pytest.raises(CheckpointError, match=r"stdc1\.pdparams does not fit") as caught:
            load_backbone_weights(other, path)
        assert fix in caught.value.hint


class _Calls:
    def __init__(self, function: Any, *words: Any) -> None:
        self.made = (function, words)

    def __reduce__(self) -> Any:
        return self.made


def test_code_in_a_file_does_not_run(tmp_path: Path) -> None:
    for number, (function, words) in enumerate(
        (
            (os.mkdir, (str(tmp_path / "made"),)),
            (eval, ("1 + 1",)),
            (getattr, ("a", "upper")),
            (np.load, ("x.npy",)),
        )
    ):
        path = write(tmp_path / f"{number}.pdparams", {"a": _Calls(function, *words)})
        with pytest.raises(CheckpointError, match="code in it was not run") as caught:
            read_pdparams(path)
        assert function.__name__ in caught.value.why and "paddle.load(FILE)" in caught.value.hint
    assert not (tmp_path / "made").exists()


def _array(shape: bytes, kind: bytes, content: bytes) -> bytes:
    """A pickle of one array, by its opcodes."""
    made = b"\x80\x03}X\x01\x00\x00\x00acnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85C\x01btR"
    dtype = b"cnumpy\ndtype\n(" + b"X" + struct.pack("<I", len(kind)) + kind + b"K\x00K\x01tR"
    return made + b"(K\x01" + shape + dtype + b"\x89B" + struct.pack("<I", len(content)) + content + b"tbs."


HUGE = b"(\x8a\x08" + (1 << 60).to_bytes(8, "little") + b"t"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "it is empty"),
        (b"PK\x03\x04 a zip", "is no .pdparams file"),
        (b"<!DOCTYPE html><html>", "web page"),
        (pickle.dumps({"a": np.zeros(99, np.float32)})[:-60], ""),
        (_array(HUGE, b"f4", b"1234"), "has 4 bytes"),
        (_array(b"(J\xff\xff\xff\xfft", b"f4", b""), "has 0 bytes"),
        (_array(b"K\x01\x85", b"O8", b"12345678"), "no number"),
        (_array(b"K\x01\x85", b"M8", b"12345678"), "no number"),
        (b"\x80\x03cnumpy.core.multiarray\n_reconstruct\n}b.", "it changes a function"),
        (b"\x80\x03cnumpy\nndarray\n(K\x63tR.", "without numbers"),
        (b"\x80\x03cbuiltins\nbytes\nJ\xff\xff\xff\x7f\x85R.", "takes 0 positional arguments"),
        (pickle.dumps([1, 2]), "a list, not a dict"),
        (b"\x80\x03(" + b"(" * 5000 + b"t" * 5000 + b"t.", "a tuple, not a dict"),
    ],
    ids=str,
)
def test_damaged_and_crafted_files_are_refused(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "m.pdparams").write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        read_pdparams(tmp_path / "m.pdparams")
    assert said in f"{caught.value.message} {caught.value.why}" and "m.pdparams" in caught.value.message
    assert caught.value.hint


def test_the_crafted_array_is_otherwise_one(tmp_path: Path) -> None:
    """So that what is refused above is refused for what it says there."""
    (tmp_path / "m.pdparams").write_bytes(_array(b"K\x01\x85", b"f4", struct.pack("<f", 1.5)))
    assert read_pdparams(tmp_path / "m.pdparams")["a"].tolist() == [1.5]


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileAccessError):
        read_pdparams(tmp_path / "none.pdparams")
