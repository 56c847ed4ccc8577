"""On real footage, where ``RTDA_DATA`` names the folder that has it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from runtime.models import tiny_spec, write_model

from rtda_runtime import Overlay, Pipeline, Segmenter, VideoSink, open_source

CLIP = "clips/udacity_solidWhiteRight_960x540.mp4"


@pytest.fixture()
def clip() -> Path:
    folder = os.environ.get("RTDA_DATA")
    if not folder:
        pytest.skip("RTDA_DATA is not set: it names the folder of real data")
    path = Path(folder) / CLIP
    if not path.exists():
        pytest.skip(f"{path} is not there")
    return path


@pytest.mark.slow
def test_every_frame_of_a_drive_arrives_in_the_overlay_video(clip: Path, tmp_path: Path) -> None:
    pytest.importorskip("av", reason="PyAV is not installed: pip install av")
    saved = tmp_path / "overlay.mp4"
    spec = tiny_spec(size_hw=(256, 512))
    with Segmenter.open(write_model(tmp_path / "tiny.onnx", spec)) as segmenter:
        sink = VideoSink(saved, 25, (960, 540), overlay=Overlay(spec))
        with Pipeline.open(segmenter, clip, sinks=[sink]) as pipeline:
            for result in pipeline:
                assert result.mask.shape == (540, 960)
    assert (pipeline.stats["frames"], pipeline.stats["dropped"]) == (221, 0)
    with open_source(saved) as source:
        assert source.size_wh == (960, 540)
        frames = 0
        while source.read() is not None:
            frames += 1
    assert frames == 221
