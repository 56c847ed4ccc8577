"""Machines that decode or compute differently: what is seen of them, refused, and accepted by name."""

from __future__ import annotations

import base64
import dataclasses
import json
import zlib
from pathlib import Path
from typing import Any, Tuple

import numpy as np
import pytest
from runtime.models import write_model

from rtda_deploy.errors import ConfigError, DataError, DeviceError
from rtda_runtime.fleet.fingerprint import Fingerprint, probes_for, take_fingerprint
from rtda_runtime.fleet.labelling import label_footage
from rtda_runtime.fleet.mixed import accepted_differences, mixed_machines, note_mixed
from rtda_runtime.fleet.plan import PLAN
from rtda_runtime.fleet.request import LabelRequest
from rtda_runtime.segmenter import Segmenter

cv2 = pytest.importorskip("cv2")
pytest.importorskip("onnx", reason="the tests' networks are written with onnx")

PICTURES, VIDEOS = ("jpeg", "png"), ("h264", "mjpeg", "mpeg4")


def taken(model: Path, *probes: str, confidence: bool = True) -> Fingerprint:
    with Segmenter.open(model, "cpu", threads=1, confidence=confidence) as segmenter:
        return take_fingerprint(segmenter, probes)


def scaled(model: Path, target: Path, factor: float) -> Path:
    """The same network with weights that are so many times as large: as another processor's rounding, or worse."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(str(model))
    weights = numpy_helper.to_array(graph.graph.initializer[0]).copy()
    weights[0] *= np.float32(factor)
    graph.graph.initializer[0].CopyFrom(numpy_helper.from_array(weights, graph.graph.initializer[0].name))
    onnx.save(graph, str(target))
    return target


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Tuple[Path, Fingerprint]:
    """A model, and this machine's fingerprint with it."""
    pytest.importorskip("av")
    model = write_model(tmp_path_factory.mktemp("machine") / "model.onnx")
    return model, taken(model, *PICTURES, *VIDEOS)


def test_the_same_machine_gives_the_same_fingerprint_and_decodes_every_probe(
    machine: Tuple[Path, Fingerprint],
) -> None:
    model, first = machine
    again = taken(model, *PICTURES, *VIDEOS)
    assert again == first and Fingerprint.from_json(first.to_json()) == first
    assert set(first.pixels) == {*PICTURES, *VIDEOS} and "not decoded" not in first.pixels.values()
    assert len(set(first.pixels.values())) == 5 and first.mask and first.confidence
    assert len(first.to_json()) < 20_000
    assert accepted_differences(again, first, (), "cpu") == {}


def test_only_what_the_footage_needs_is_decoded() -> None:
    assert probes_for({"pictures"}) == PICTURES and probes_for({"video"}) == VIDEOS
    assert probes_for({"bag"}) == probes_for({"pictures", "video"}) == (*PICTURES, *VIDEOS)


def test_pictures_that_the_probes_show_are_decoded_to_their_pixels() -> None:
    """So that a decoder which answers grey everywhere is told from one that works."""
    from rtda_runtime.fleet import fingerprint

    folder = Path(fingerprint.__file__).with_name("probes")
    png, jpeg = (cv2.imread(str(folder / f"picture.{suffix}")).astype(int) for suffix in ("png", "jpg"))
    assert png.std() > 40 and np.abs(png - jpeg).mean() < 12


def test_another_decoder_is_refused_with_what_differs_and_the_fix(machine: Tuple[Path, Fingerprint]) -> None:
    _, plan = machine
    versions = {**plan.versions, "av": "1.2.3"}
    here = dataclasses.replace(plan, host="node7", pixels={**plan.pixels, "h264": "0" * 16}, versions=versions)
    with pytest.raises(
        DeviceError, match=r"machine node7 would make other labels than .*other pixels .* h264"
    ) as caught:
        accepted_differences(here, plan, ("engine",), "cpu")
    assert "av 1.2.3" in caught.value.why and f"av {plan.versions['av']}" in caught.value.why
    assert f"'av=={plan.versions['av']}.*'" in caught.value.hint and "--mixed decoder" in caught.value.hint
    found = accepted_differences(here, plan, ("decoder",), "cpu")
    assert list(found) == ["decoder"]
    same = dataclasses.replace(here, versions=plan.versions)
    with pytest.raises(DeviceError) as caught:
        accepted_differences(same, plan, (), "cpu")
    assert "pip install" not in caught.value.hint and "processor" in caught.value.hint


def test_a_machine_that_cannot_decode_is_told_so(machine: Tuple[Path, Fingerprint]) -> None:
    _, plan = machine
    here = dataclasses.replace(plan, pixels={**plan.pixels, "h264": "not decoded"})
    with pytest.raises(DeviceError, match="than it did when it made the plan: it cannot decode h264"):
        accepted_differences(here, plan, (), "cpu")


def test_rounding_is_refused_on_a_cpu_unless_accepted_and_let_pass_on_a_gpu(
    machine: Tuple[Path, Fingerprint], tmp_path: Path
) -> None:
    model, plan = machine
    here = taken(scaled(model, tmp_path / "rounded.onnx", 1.001), *PICTURES, *VIDEOS)
    assert here.changed_pixels(plan) < 0.01 and here.confidence != plan.confidence
    with pytest.raises(DeviceError, match=r"other labels.*the network gives") as caught:
        accepted_differences(here, plan, ("decoder",), "cpu")
    assert "--mixed engine" in caught.value.hint and "ONNX Runtime" in caught.value.why
    assert list(accepted_differences(here, plan, ("engine",), "cpu")) == ["engine"]
    assert accepted_differences(here, plan, (), "cuda") == {}


def test_what_is_more_than_rounding_is_never_accepted(machine: Tuple[Path, Fingerprint], tmp_path: Path) -> None:
    _, plan = machine
    other = taken(write_model(tmp_path / "other.onnx", seed=3), *PICTURES, *VIDEOS)
    assert other.changed_pixels(plan) > 0.1
    nothing = dataclasses.replace(plan, mask="")
    for here in (other, nothing):
        for provider in ("cpu", "cuda"):
            with pytest.raises(DeviceError, match="% of the pixels") as caught:
                accepted_differences(here, plan, ("decoder", "engine"), provider)
            assert "more than rounding" in caught.value.hint and "1e+" not in caught.value.message


def test_without_confidences_the_masks_alone_are_compared(machine: Tuple[Path, Fingerprint], tmp_path: Path) -> None:
    model, _ = machine
    plan = taken(model, confidence=False)
    assert plan.confidence == "" and plan.mask
    here = taken(scaled(model, tmp_path / "rounded.onnx", 1.0 + 1e-7), confidence=False)
    assert accepted_differences(here, plan, (), "cpu") == {}


def test_machines_that_were_accepted_are_noted(machine: Tuple[Path, Fingerprint], tmp_path: Path) -> None:
    _, plan = machine
    assert mixed_machines(tmp_path) == {}
    for host in ("node7", "node7", "10.0.0.5"):
        note_mixed(tmp_path, dataclasses.replace(plan, host=host), {"engine": "rounds"})
    assert mixed_machines(tmp_path) == {"10.0.0.5": {"engine": "rounds"}, "node7": {"engine": "rounds"}}


def test_what_may_differ_is_decoder_or_engine() -> None:
    with pytest.raises(ConfigError, match="--mixed colour is unknown") as caught:
        LabelRequest(Path("model.onnx"), ("frames",), Path("out"), mixed=("engine", "colour"))
    assert "decoder, engine" in caught.value.hint


def test_a_fingerprint_that_is_none_is_refused() -> None:
    for text in ("{", "[]", '{"host": "a"}'):
        with pytest.raises(DataError):
            Fingerprint.from_json(text)


@pytest.mark.parametrize(
    "changed",
    [
        {"pixels": []},
        {"pixels": {"../picture.png": "0"}},
        {"pixels": {"png": 5}},
        {"versions": []},
        {"host": 5},
        {"mask": 5},
        {"mask": "!"},
        {"mask": "eJwDAAAAAAE="},
        {"mask": base64.b64encode(zlib.compress(bytes(10**6))).decode()},
    ],
)
def test_a_fingerprint_that_was_edited_is_refused_when_it_is_read(changed: Any) -> None:
    whole = {"host": "a", "pixels": {"png": "0"}, "mask": "", "confidence": "", "versions": {}}
    assert Fingerprint.from_json(json.dumps(whole)).versions_of("engine") == "unknown versions"
    with pytest.raises(DataError, match="no fingerprint") as caught:
        Fingerprint.from_json(json.dumps({**whole, **changed}))
    assert caught.value.why and caught.value.hint


def test_the_packages_that_are_named_can_be_installed(machine: Tuple[Path, Fingerprint]) -> None:
    """The library's version is the package's without what comes after it: 5.0.0 of opencv-python-headless 5.0.0.93."""
    _, plan = machine
    here = dataclasses.replace(plan, pixels={}, versions={**plan.versions, "opencv": "1.2.3"})
    with pytest.raises(DeviceError) as caught:
        accepted_differences(here, plan, (), "cpu")
    assert f"'opencv-python-headless=={plan.versions['opencv']}.*'" in caught.value.hint
    silent = dataclasses.replace(plan, versions={})
    with pytest.raises(DeviceError) as caught:
        accepted_differences(here, silent, (), "cpu")
    assert "pip install" not in caught.value.hint and "the plan's machine unknown versions" in caught.value.why


def test_a_damaged_note_of_a_machine_is_named(tmp_path: Path) -> None:
    (tmp_path / "machines").mkdir()
    for text in ("{", "[]", '{"host": "a", "differs": []}'):
        (tmp_path / "machines" / "a.json").write_text(text)
        with pytest.raises(DataError, match=r"a\.json"):
            mixed_machines(tmp_path)


def test_a_run_goes_on_only_where_the_plan_was_made_alike(machine: Tuple[Path, Fingerprint], tmp_path: Path) -> None:
    """The plan's digest of the JPEG is changed, as if another machine had made it; PNGs alone were labelled."""
    model, _ = machine
    (tmp_path / "frames").mkdir()
    for number in range(2):
        cv2.imwrite(str(tmp_path / "frames" / f"{number}.png"), np.full((64, 96, 3), 80 * number, np.uint8))
    out = tmp_path / "out"
    asked = LabelRequest(model, (str(tmp_path / "frames"),), out, threads=1, unit_frames=1)
    assert label_footage(asked).mixed == {}
    plan = json.loads((out / PLAN).read_text())
    assert set(plan["machine"]["pixels"]) == set(PICTURES)
    plan["machine"]["host"], plan["machine"]["pixels"]["jpeg"] = "elsewhere", "0" * 16
    (out / PLAN).write_text(json.dumps(plan))
    done = sorted((out / "units").iterdir())
    assert label_footage(asked).frames == 2, "nothing is to be labelled, so nothing is compared"
    done[0].unlink()
    with pytest.raises(DeviceError, match=r"than elsewhere, which made the plan: it decodes other pixels .* jpeg"):
        label_footage(asked)
    assert not list((out / "attempts").iterdir()) and not done[0].exists()
    found = label_footage(dataclasses.replace(asked, mixed=("decoder",)))
    assert list(found.mixed) == [found_host(out)] and found.frames == 2
    assert json.loads((out / "labelled.json").read_text())["mixed"] == found.mixed


def found_host(out: Path) -> str:
    (path,) = (out / "machines").iterdir()
    return str(json.loads(path.read_text())["host"])
