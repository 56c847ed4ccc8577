"""ToyTown: the same pictures everywhere, all classes, two looks."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Tuple

import numpy as np
import pytest

pytest.importorskip("cv2")

from rtda_deploy.errors import ConfigError
from rtda_training.data import toytown

SIZE_HW = (64, 128)
ROOT = Path(__file__).resolve().parents[3]
BOTH = pytest.mark.parametrize("domain", toytown.DOMAINS)


def digest(domain: str, split: str, index: int) -> str:
    frame, label = toytown.render(domain, split, index, SIZE_HW)
    return hashlib.sha256(frame.tobytes() + label.tobytes()).hexdigest()


@BOTH
def test_a_picture_is_the_same_in_any_order_and_in_another_process(domain: str) -> None:
    code = (
        "import hashlib; from rtda_training.data import toytown\n"
        f"frame, label = toytown.render({domain!r}, 'val', 3, {SIZE_HW})\n"
        "print(hashlib.sha256(frame.tobytes() + label.tobytes()).hexdigest())"
    )
    paths = os.pathsep.join((str(ROOT / "training"), str(ROOT)))
    environment = {**os.environ, "PYTHONPATH": paths}
    elsewhere = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    ).stdout.strip()
    first = digest(domain, "val", 3)
    digest(domain, "val", 4)
    assert digest(domain, "val", 3) == first == elsewhere


def test_no_two_splits_domains_or_indices_share_a_picture() -> None:
    seen = [digest(d, s, i) for d in toytown.DOMAINS for s in toytown.SPLITS for i in range(4)]
    assert len(set(seen)) == len(seen)


@BOTH
@pytest.mark.parametrize("split", toytown.SPLITS)
def test_every_class_appears_among_the_first_pictures(domain: str, split: str) -> None:
    present = set()
    for index in range(24):
        present |= set(np.unique(toytown.render(domain, split, index, SIZE_HW)[1]).tolist())
    assert set(range(19)) <= present <= {*range(19), 255}


@BOTH
@pytest.mark.parametrize("size_hw", [(32, 32), (64, 128), (96, 128), (256, 512), (135, 241)])
def test_frame_and_label_have_the_size_asked_for(domain: str, size_hw: Tuple[int, int]) -> None:
    frame, label = toytown.render(domain, "test", 0, size_hw)
    assert frame.shape == (*size_hw, 3) and frame.dtype == np.uint8 and frame.flags.c_contiguous
    assert label.shape == size_hw and label.dtype == np.uint8 and label.flags.c_contiguous


@BOTH
def test_the_scene_of_an_index_is_the_same_at_every_size(domain: str) -> None:
    small = toytown.render(domain, "train", 1, (128, 256))[1]
    large = toytown.render(domain, "train", 1, (256, 512))[1][::2, ::2]
    assert np.mean(small == large) > 0.93  # outlines are rounded to other pixels


def test_the_label_fits_the_frame() -> None:
    """Source surfaces are flat: the sky is bluer and the grass greener than the road, wherever the label says so."""
    sky, grass, road = [], [], []
    for index in range(12):
        frame, label = toytown.render("source", "train", index, SIZE_HW)
        sky.append(frame[label == 10])
        grass.append(frame[label == 9])
        road.append(frame[label == 0])
    blueness, greenness = np.array([1.0, 0.0, -1.0]), np.array([-0.5, 1.0, -0.5])
    found = {"sky": sky, "grass": grass, "road": road}
    mean = {name: np.concatenate(pixels).mean(axis=0) for name, pixels in found.items()}
    assert mean["sky"] @ blueness > mean["road"] @ blueness + 30
    assert mean["grass"] @ greenness > mean["road"] @ greenness + 30


def test_the_target_is_darker_paler_and_noisier_than_the_source() -> None:
    brightness, colour, fine = {}, {}, {}
    for domain in toytown.DOMAINS:
        frames = np.stack([toytown.render(domain, "train", i, SIZE_HW)[0] for i in range(10)]).astype(np.float64)
        labels = np.stack([toytown.render(domain, "train", i, SIZE_HW)[1] for i in range(10)])
        brightness[domain] = frames.mean()
        colour[domain] = (frames.max(axis=3) - frames.min(axis=3)).mean()
        within = (labels[:, :, 1:] == 0) & (labels[:, :, :-1] == 0)
        fine[domain] = np.median(np.abs(np.diff(frames, axis=2)).mean(axis=3)[within])  # the median knows no markings
    assert brightness["target"] < 0.95 * brightness["source"]
    assert colour["target"] < 0.7 * colour["source"]
    assert fine["target"] > fine["source"] + 1.0


@BOTH
def test_a_clip_moves_a_little_from_frame_to_frame(domain: str) -> None:
    clip = list(toytown.render_clip(domain, 0, 4, SIZE_HW))
    assert len(clip) == 4
    for (_, before), (_, after) in zip(clip, clip[1:]):
        assert 0.75 < np.mean(before == after) < 1.0


def test_a_clip_is_repeatable_and_no_picture_of_a_split() -> None:
    first = [frame.tobytes() for frame, _ in toytown.render_clip("target", 1, 2, SIZE_HW)]
    assert first == [frame.tobytes() for frame, _ in toytown.render_clip("target", 1, 2, SIZE_HW)]
    assert first[0] not in [toytown.render("target", split, 1, SIZE_HW)[0].tobytes() for split in toytown.SPLITS]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("mars", "train", 0), "mars"),
        (("source", "holdout", 0), "holdout"),
        (("source", "train", -1), "-1"),
        (("source", "train", 0, (16, 64)), "16x64"),
    ],
)
def test_what_toytown_cannot_draw_is_refused_with_a_hint(arguments: Tuple[object, ...], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        toytown.render(*arguments)  # type: ignore[arg-type]
    assert caught.value.hint


def test_a_clip_of_every_third_frame_drives_the_same_street_three_times_as_fast() -> None:
    whole = list(toytown.render_clip("source", 3, 7, SIZE_HW))
    part = list(toytown.render_clip("source", 3, 3, SIZE_HW, every=3))
    for (frame, label), (expected, its_label) in zip(part, whole[::3]):
        np.testing.assert_array_equal(frame, expected)
        np.testing.assert_array_equal(label, its_label)


def test_a_clip_is_refused_before_its_first_frame() -> None:
    with pytest.raises(ConfigError, match="mars"):
        toytown.render_clip("mars", 0, 3)
    with pytest.raises(ConfigError, match="at least one"):
        toytown.render_clip("source", 0, 0)
    with pytest.raises(ConfigError, match="forwards"):
        toytown.render_clip("source", 0, 3, every=0)


def test_the_package_imports_without_opencv() -> None:
    code = (
        "import sys; sys.modules['cv2'] = None; from rtda_training.data.toytown import TOYTOWN_VERSION as v; print(v)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT / "training"), str(ROOT)))}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == "1", done.stderr
