"""Checkpoints as strangers write them: wrapped, prefixed, with numpy's scalars, or with weights that are none."""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from rtda_deploy.errors import CheckpointError
from rtda_deploy.spec import ModelSpec
from rtda_training.checkpoint import Checkpoint, model_from_checkpoint, read_checkpoint, write_checkpoint
from rtda_training.models import BiSeNet
from rtda_training.models.lineages import LINEAGES
from rtda_training.models.state_dicts import unwrapped
from rtda_training.torch_file import read_torch_file

WEIGHTS = {"conv.weight": torch.arange(6.0).reshape(2, 3), "conv.bias": torch.tensor([0.5, -1.0])}
SPEC = ModelSpec(
    (64, 64),
    ("road", "sky"),
    ((1, 2, 3), (4, 5, 6)),
    provenance={"architecture": {"name": "BiSeNet", "backbone": "resnet18", "variant": "rtda"}},
)


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return BiSeNet("resnet18", "rtda", 2).state_dict()


def prefixed(*prefixes: str, **more: Any) -> dict[str, Any]:
    return {**{"".join(prefixes) + key: value for key, value in WEIGHTS.items()}, **more}


@pytest.mark.parametrize(
    "content",
    [
        prefixed("_orig_mod."),
        prefixed("module.", "_orig_mod."),
        prefixed("_orig_mod.", "module."),
        {f"conv._orig_mod.{key[5:]}": value for key, value in WEIGHTS.items()},
        {"state_dict": prefixed("model."), "pytorch-lightning_version": "2.4"},
        {"state_dict": prefixed("net.", **{"criterion.weight": torch.ones(2)})},
        {"ema": WEIGHTS},
        {"ema": {"module": WEIGHTS}},
        {"params": WEIGHTS},
        {"network": prefixed("module.")},
        {"model": {"state_dict": WEIGHTS}, "epoch": 3},
        {"state_dict": WEIGHTS, "ema": {key: value + 1 for key, value in WEIGHTS.items()}},
    ],
    ids=range(12),
)
def test_the_weights_are_found_under_every_wrapper_and_prefix(content: dict[str, Any]) -> None:
    found = unwrapped(content)
    assert set(found) == set(WEIGHTS)
    assert all(torch.equal(found[key], value) for key, value in WEIGHTS.items())


@pytest.mark.parametrize("zipped", [True, False])
def test_numpys_scalars_and_a_scripts_options_stand_in_nobodys_way(tmp_path: pathlib.Path, zipped: bool) -> None:
    content = {
        "state_dict": WEIGHTS,
        "miou": np.float64(0.625),
        "epoch": np.int64(7),
        "args": argparse.Namespace(lr=0.1, out=pathlib.Path("runs/a")),
        "out": pathlib.Path("runs/a"),
        "confusion": np.eye(3),
    }
    torch.save(content, tmp_path / "best.pth.tar", _use_new_zipfile_serialization=zipped)
    found = read_torch_file(tmp_path / "best.pth.tar")
    assert (found["miou"], found["epoch"], found["out"]) == (0.625, 7, "runs/a")
    assert type(found["miou"]) is float
    assert all(torch.equal(value, WEIGHTS[key]) for key, value in unwrapped(found).items())


def under_their_names(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A network of ours as RTDA's code saves it."""
    names = sorted(((ours, theirs) for theirs, ours in LINEAGES["rtda"].names.items()), key=lambda pair: -len(pair[0]))
    found = {}
    for key, value in weights.items():
        ours, theirs = next(pair for pair in names if key.startswith(pair[0]))
        found[theirs + key[len(ours) :]] = value
    return found


def test_an_average_that_was_left_out_is_said(tmp_path: pathlib.Path) -> None:
    tensors = under_their_names(BiSeNet("resnet18", "rtda").state_dict())
    torch.save({"state_dict": tensors, "ema": {k: v + 1 for k, v in tensors.items()}}, tmp_path / "a.pth")
    found = read_checkpoint(tmp_path / "a.pth")
    assert "ema" in found.spec.provenance["left_out"]
    assert torch.equal(found.weights["head.weight"], tensors["conv.weight"])


def self_containing() -> dict[str, Any]:
    content: dict[str, Any] = {}
    content["state_dict"] = content
    return content


FAULTS: dict[str, tuple[Callable[[torch.Tensor], Any], str]] = {
    "text": (lambda tensor: "oops", "no tensor but a str"),
    "sparse": (lambda tensor: tensor.to_sparse(), "sparse"),
    "meta": (lambda tensor: tensor.to("meta"), "without values"),
    "complex": (lambda tensor: tensor.to(torch.complex64), "imaginary"),
    "whole numbers": (lambda tensor: tensor.to(torch.int32), "whole numbers"),
    "NaN": (lambda tensor: tensor * float("nan"), "NaN or infinity in 1 of"),
    "too large for float32": (lambda tensor: tensor.double() + 1e300, "NaN or infinity"),
    "quantised": (lambda tensor: torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8), "quantised"),
}


@pytest.mark.parametrize("kind", FAULTS)
@pytest.mark.filterwarnings("ignore")
def test_weights_that_are_none_are_one_error_naming_the_weight(
    kind: str, weights: dict[str, torch.Tensor], tmp_path: pathlib.Path
) -> None:
    change, said = FAULTS[kind]
    broken = {**weights, "head.weight": change(weights["head.weight"])}
    path = write_checkpoint(tmp_path / "a.pth", Checkpoint(SPEC, broken))
    with pytest.raises(CheckpointError, match=r"a\.pth.*head\.weight") as caught:
        model_from_checkpoint(read_checkpoint(path))
    assert said in caught.value.message and caught.value.hint


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (self_containing(), "more than 8 levels"),
        ({1: torch.ones(2), 2: torch.ones(2)}, "unknown checkpoint"),
        ([1, 2], "holds a list"),
        ({"format": "rtda-deploy", "weights": {1: torch.ones(2)}, "spec": SPEC.to_json()}, "name is 1, not a text"),
        ({"format": "rtda-deploy", "weights": {"a": torch.ones(2)}, "spec": 3}, "spec of"),
        ({"format": "rtda-deploy", "weights": {}, "spec": "[" * 100_000}, "no JSON"),
    ],
    ids=["holds itself", "integer keys", "list", "own integer keys", "spec a number", "spec nested"],
)
def test_a_checkpoint_of_odd_shape_is_one_error(content: Any, said: str, tmp_path: pathlib.Path) -> None:
    from rtda_deploy.errors import RtdaError

    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(RtdaError) as caught:
        read_checkpoint(tmp_path / "a.pth")
    assert said in caught.value.message and caught.value.hint


def test_memory_is_taken_for_a_network_that_the_weights_fit_only(tmp_path: pathlib.Path) -> None:
    large = {"name": "FCN8s", "backbone": "vgg16", "hidden": 10**7}  # 250 GB
    path = write_checkpoint(tmp_path / "a.pth", Checkpoint(SPEC.replace(provenance={"architecture": large}), WEIGHTS))
    with pytest.raises(CheckpointError, match="does not fit its own architecture"):
        model_from_checkpoint(read_checkpoint(path))


@pytest.mark.parametrize(
    ("content", "why", "fix"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 4\n", "Git LFS pointer", "git lfs pull"),
        (b"<!doctype html><title>Sign in</title>", "web page", "download it again"),
    ],
)
def test_what_a_download_left_in_the_place_of_a_checkpoint_is_named(
    content: bytes, why: str, fix: str, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match="no checkpoint that torch can read") as caught:
        read_checkpoint(tmp_path / "a.pth")
    assert why in caught.value.why and fix in caught.value.hint
