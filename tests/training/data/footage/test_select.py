"""What is chosen of a drive: a lap around a made town, with everything in it that spoils frames."""

from __future__ import annotations

import numpy as np
import pytest

from rtda_deploy.errors import ConfigError, FrameError
from rtda_training.data.footage.select import SelectOptions, Selector, parse_count

pytest.importorskip("cv2")


@pytest.mark.parametrize(("text", "count"), [("500", 500), ("0", 0), ("10%", 0.1), ("0.5%", 0.005), ("100%", 1.0)])
def test_a_count_is_a_number_of_frames_or_a_share_of_them(text: str, count: float) -> None:
    parsed = parse_count(text)
    assert parsed == count
    assert isinstance(parsed, float) == text.endswith("%")
    SelectOptions(count=parsed)


@pytest.mark.parametrize("text", ["", "-1", "0%", "101%", "0.5", "all", "5 %"])
def test_a_count_that_is_neither_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="no number of frames"):
        parse_count(text)


def test_what_is_no_frame_is_refused() -> None:
    with pytest.raises(FrameError, match=r"float32 \(8, 8, 3\)"):
        Selector().look(np.zeros((8, 8, 3), np.float32))


def test_nothing_is_chosen_of_nothing() -> None:
    chosen = Selector().choose()
    assert chosen.places == () and sum(chosen.counts.values()) == 0
