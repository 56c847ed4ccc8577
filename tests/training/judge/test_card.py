"""The calibration card: what is measured, that it travels, and that nothing fails without it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from training.settings import TinyNetwork, make_pictures, write_domains  # noqa: E402

from rtda_deploy.card import BINS, Card, card_from_json  # noqa: E402
from rtda_runtime.shift.reference import unpacked  # noqa: E402
from rtda_training.checkpoint import read_checkpoint, write_checkpoint  # noqa: E402
from rtda_training.data.address import DataAddress  # noqa: E402
from rtda_training.data.batches import normalise  # noqa: E402
from rtda_training.data.config import InputConfig  # noqa: E402
from rtda_training.judge.answers import softmax  # noqa: E402
from rtda_training.judge.calibration import confidence_bins, temperature_of  # noqa: E402
from rtda_training.loop.cards import measure_card  # noqa: E402
from rtda_training.loop.familiar import measure_familiar  # noqa: E402
from rtda_training.readers import LabelledSet, UnlabelledSet  # noqa: E402
from rtda_training.run import train  # noqa: E402


def drawn(temperature: float, count: int = 20_000) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels drawn from their softmax at a temperature."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 3, (count, 5)).astype(np.float32)
    chance = softmax(logits.T / temperature).T.cumsum(axis=1)
    return logits, (rng.random((count, 1)) > chance).sum(axis=1).clip(0, 4)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_temperature_is_found_that_labels_were_drawn_with(temperature: float) -> None:
    assert temperature_of(*drawn(temperature)) == pytest.approx(temperature, rel=0.05)  # 20,000 draws: about 1.5 %


def test_bins_say_how_often_each_confidence_is_right() -> None:
    logits, labels = drawn(1.0)
    sure = softmax(logits.T)
    confidence, accuracy = confidence_bins(sure.max(axis=0), sure.argmax(axis=0) == labels)
    card = Card("x", 1, True, 1.0, (1.0,), (1.0,), confidence, accuracy)
    assert sum(confidence) == pytest.approx(1.0) and accuracy[0] is None
    assert card.calibration_error < 0.02  # drawn from what it says
    assert card.right == pytest.approx(float((sure.argmax(axis=0) == labels).mean()))
    assert card.expected_accuracy(confidence) == pytest.approx(card.right, abs=1e-6)
    less_sure = np.zeros(BINS)
    less_sure[10] = 1.0
    assert card.expected_accuracy(less_sure.tolist()) == pytest.approx(0.525, abs=0.05)


def test_a_card_comes_back_from_its_text_and_a_broken_one_is_none() -> None:
    torch.manual_seed(0)
    pictures = LabelledSet(make_pictures(4), DataAddress.parse("list:source"))
    network = TinyNetwork(5).train()
    card = measure_card(network, pictures, (64, 64), InputConfig(), held_out=True)
    assert card is not None and network.training and card.pictures == 4
    assert [len(stage.mean) for stage in card.features] == [4, 6, 8, 10]
    assert sum(card.class_prior) == pytest.approx(1.0) and sum(card.confidence) == pytest.approx(1.0)
    again = card_from_json(card.to_json())
    assert again is not None and again.to_json() == card.to_json()
    assert again.temperature == pytest.approx(card.temperature, rel=1e-4)
    values = json.loads(card.to_json())
    broken = ["", "{", "[]", json.dumps({**values, "version": 2}), json.dumps({**values, "temperature": 0.0})]
    broken += [json.dumps({**values, "confidence": [1.0]}), json.dumps({**values, "class_prior": ["x"]})]
    assert [card_from_json(text) for text in broken] == [None] * len(broken)


def test_blocks_are_what_the_exported_file_will_give_a_picture_each() -> None:
    torch.manual_seed(0)
    pictures = UnlabelledSet(make_pictures(12), DataAddress.parse("list:drive"))
    network = TinyNetwork(5).train()
    found = measure_familiar(network, pictures, (64, 64), InputConfig(), robot=True)
    assert found is not None and network.training
    values = unpacked(found)
    with torch.no_grad():
        maps = network.eval()(normalise(torch.from_numpy(pictures.frame(0))[None], InputConfig())).features
    assert found.widths == (maps[1].shape[1], maps[3].shape[1], 5, 1) and found.blocks == 12
    assert found.robot and found.data == "list:drive"
    for name, part in (("appearance", maps[1]), ("features", maps[3])):
        step = (values[name].max(axis=0) - values[name].min(axis=0)).max() / 255
        assert values[name][0] == pytest.approx(part.mean(dim=(2, 3))[0].numpy(), abs=2 * step + 1e-5)
    assert (values["classes"] ** 2).sum(axis=1) == pytest.approx([1.0] * 12, abs=0.02)
    assert (values["confidence"] > 0.2).all()
    few = UnlabelledSet(make_pictures(9), DataAddress.parse("list:drive"))
    assert measure_familiar(network, few, (64, 64), InputConfig(), robot=True) is None


def test_pictures_without_a_labelled_pixel_give_no_card() -> None:
    inner = make_pictures(2)
    inner.labels = [np.full_like(label, 255) for label in inner.labels]
    empty = LabelledSet(inner, DataAddress.parse("list:source"))
    assert measure_card(TinyNetwork(5), empty, (64, 64), InputConfig(), held_out=True) is None


def test_a_training_ends_with_a_card_of_the_sources_val_split(tmp_path: Path) -> None:
    data = write_domains(tmp_path, 3, 4, 16, target_val=True)
    source, val = f"folder:{data}/source", f"folder:{data}/target"
    asked = {"steps": 2, "batch_size": 2, "size": "64x64", "device": "cpu", "source": source}
    train("source-only", out=tmp_path / "own", **asked)  # type: ignore[arg-type]
    train("source-only", out=tmp_path / "typed", val=val, **asked)  # type: ignore[arg-type]
    for run in ("own", "typed"):
        for name in ("last.pth", "best.pth"):
            card = card_from_json(read_checkpoint(tmp_path / run / name).card)
            assert card is not None and card.held_out and card.pictures == 4
            assert card.data == f"{source}?split=val" or card.data == source, card.data
    listed = tmp_path / "list.txt"
    listed.write_text("\n".join(f"train/images/{index}.png" for index in range(4)))
    train("source-only", out=tmp_path / "list", val=val, **{**asked, "source": f"{source}?list={listed}"})  # type: ignore[arg-type]
    card = card_from_json(read_checkpoint(tmp_path / "list/last.pth").card)
    assert card is not None and not card.held_out


def test_the_card_goes_into_the_onnx_and_a_model_without_one_is_as_before(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    from rtda_deploy.cli.inspect import describe_file
    from rtda_deploy.onnx_file import CARD_KEY, onnx_spec, read_onnx_metadata
    from rtda_export import onnx_from_checkpoint

    data = write_domains(tmp_path, 3, 4, 16)
    train(
        "source-only",
        out=tmp_path / "run",
        steps=1,
        batch_size=2,
        size="64x64",
        device="cpu",
        source=f"folder:{data}/source",
    )
    last = tmp_path / "run" / "last.pth"
    checkpoint = read_checkpoint(last)
    with_card = onnx_from_checkpoint(last, tmp_path / "with.onnx")
    assert read_onnx_metadata(with_card)[CARD_KEY] == checkpoint.card
    assert describe_file(with_card)["card"] == describe_file(last)["card"]
    assert 0.0 <= describe_file(last)["card"]["calibration_error"] <= 1.0
    bare = write_checkpoint(tmp_path / "bare.pth", dataclasses.replace(checkpoint, card=""))
    without = onnx_from_checkpoint(bare, tmp_path / "without.onnx")
    assert CARD_KEY not in read_onnx_metadata(without)
    assert describe_file(without)["card"] is None and describe_file(bare)["card"] is None
    assert onnx_spec(with_card).replace(provenance={}) == onnx_spec(without).replace(provenance={})
