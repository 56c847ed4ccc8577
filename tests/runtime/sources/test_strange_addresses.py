"""Addresses that no file system takes, and films whose title is in another encoding: found by benchmarks/fuzz.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rtda_deploy.errors import DataError, FileAccessError, RtdaError
from rtda_deploy.files import readable_file
from rtda_runtime import open_source


@pytest.mark.parametrize(
    "address",
    [
        "file:///a%00b",
        "a\0b.mp4",
        "a" * 5000 + ".mp4",
        "x/%d" + "a" * 5000 + ".png",
        "frames/\ud800.png",
        "\ud800/%06d.png",
        "/dev/video" + "1" * 5000,
    ],
    ids=["NUL escaped", "NUL", "long", "long pattern", "half a pair", "half a pair's pattern", "long device"],
)
def test_an_address_that_no_file_system_takes_is_one_error(address: str) -> None:
    with pytest.raises(RtdaError) as caught:
        open_source(address)
    assert caught.value.hint


@pytest.mark.parametrize("path", ["a\0b", "\ud800", "a" * 5000])
def test_a_file_name_that_none_has_is_one_error(path: str) -> None:
    with pytest.raises(FileAccessError) as caught:
        readable_file(path, what="model")
    assert caught.value.hint


@pytest.mark.parametrize("path", ["a\0b", "a" * 5000])
@pytest.mark.parametrize("kind", ["folder", "cityscapes", "camvid", "gta5", "idda"])
def test_a_data_set_that_no_file_system_takes_is_one_error(kind: str, path: str) -> None:
    from rtda_training.readers import open_unlabelled

    with pytest.raises((DataError, FileAccessError)) as caught:
        open_unlabelled(f"{kind}:{path}")
    assert caught.value.hint


def test_a_film_whose_title_is_in_latin_1_is_read_to_its_end(tmp_path: Path) -> None:
    av: Any = pytest.importorskip("av", reason="films are read with PyAV")
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "Stra\u00dfe"
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for shade in (50, 100, 150):
            picture = np.full((48, 64, 3), shade, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="bgr24")))
        container.mux(stream.encode(None))
    content = path.read_bytes()
    assert content.count("Stra\u00dfe".encode()) == 1
    path.write_bytes(content.replace("Stra\u00dfe".encode(), b"Stra\xdf\xdfe"))
    with open_source(path) as source:
        frames = [source.read() for _ in range(4)]
    assert frames[3] is None
    shades = [float(frame.image.mean()) for frame in frames[:3] if frame is not None]
    assert shades == pytest.approx([50, 100, 150], abs=6)  # mpeg4 is lossy
