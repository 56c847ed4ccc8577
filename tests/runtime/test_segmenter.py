from __future__ import annotations

import dataclasses
import threading
from pathlib import Path
from typing import Any, List, Optional, Sequence, Tuple

import numpy as np
import pytest
from patience import PATIENCE_S
from runtime.fakes import FakeClock, NumpyEngine
from runtime.models import tiny_logits, tiny_spec, write_model

from rtda_deploy.errors import ConfigError, EngineError, FrameError
from rtda_runtime import Segmenter, open_engine
from rtda_runtime.engines.base import FramePath
from rtda_runtime.mask.groups import ClassGroups
from rtda_runtime.mask.preprocess import preprocess
from rtda_runtime.mask.regions import RegionOfInterest
from rtda_runtime.mask.upsample import upsample_argmax


def _frame(height: int = 90, width: int = 130, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_mask_is_that_of_the_steps_done_by_hand(model_path: Path) -> None:
    frame = _frame()
    picture = np.empty((1, 3, 64, 96), np.float32)
    preprocess(frame, tiny_spec(), picture)
    expected = upsample_argmax(tiny_logits(picture).astype(np.float32), (90, 130))
    with Segmenter.open(model_path) as segmenter:
        mask = segmenter.segment(frame).mask
    assert mask.dtype == np.uint8 and mask.shape == (90, 130)
    # the engine sums in another order: pixels on a border between two classes may differ
    assert (mask != expected).mean() < 1e-3


def test_result_says_what_it_is(model_path: Path) -> None:
    with Segmenter.open(model_path) as segmenter:
        assert segmenter.provider == "cpu"
        assert segmenter.path == model_path
        frame = _frame()
        first, second = segmenter.segment(frame), segmenter.segment(frame, captured_ns=5, sequence=9)
    assert first.frame is frame
    assert (first.sequence, second.sequence, second.captured_ns, first.dropped) == (0, 9, 5, 0)
    assert set(first.timing) == {"preprocess", "infer", "postprocess"}
    assert first.spec == tiny_spec()
    with pytest.raises(dataclasses.FrozenInstanceError):
        first.mask = second.mask  # type: ignore[misc]


def test_timing_is_milliseconds_per_stage() -> None:
    clock = FakeClock()
    segmenter = Segmenter(NumpyEngine(before=lambda: clock.sleep(0.025)), clock=clock)
    timing = segmenter.segment(_frame()).timing
    assert timing == {"preprocess": 0.0, "infer": 25.0, "postprocess": 0.0}


def test_the_next_call_leaves_the_result_alone_unless_out_is_given() -> None:
    segmenter = Segmenter(NumpyEngine())
    first = segmenter.segment(_frame(seed=1))
    kept = first.mask.copy()
    segmenter.segment(_frame(seed=2))
    np.testing.assert_array_equal(first.mask, kept)

    out = np.empty((90, 130), np.uint8)
    reused = segmenter.segment(_frame(seed=1), out=out)
    assert reused.mask is out
    copy = reused.copy()
    segmenter.segment(_frame(seed=2), out=out)
    np.testing.assert_array_equal(copy.mask, kept)
    assert (reused.mask != kept).any()


def test_copy_shares_nothing_with_the_frame() -> None:
    frame = _frame()
    copy = Segmenter(NumpyEngine()).segment(frame).copy()
    frame[:] = 0
    assert copy.frame.any()


def test_frames_of_changing_size_are_served() -> None:
    segmenter = Segmenter(NumpyEngine())
    for height, width in ((64, 96), (1, 1), (333, 77), (64, 96)):
        assert segmenter.segment(_frame(height, width)).mask.shape == (height, width)


def test_letterboxed_frame_gets_the_mask_of_its_content_only() -> None:
    # A white frame, taller than the network's input: black bars left and right. Class 1 fires on white, 0 on the rest.
    spec = tiny_spec(resize="letterbox", pixel_scale=1.0, mean=(0, 0, 0), std=(1, 1, 1))

    class WhiteIsOne(NumpyEngine):
        def _infer(self) -> np.ndarray:
            bright = self.input_buffer[0, 0, ::8, ::8] > 100
            self._output[:] = 0.0
            self._output[1] = np.where(bright, 1.0, -1.0)
            return self._output

    mask = Segmenter(WhiteIsOne(spec)).segment(np.full((640, 320, 3), 255, np.uint8)).mask
    np.testing.assert_array_equal(mask, 1)


@pytest.mark.parametrize("resize", ["stretch", "letterbox"])
def test_mask_network_is_enlarged_to_the_camera_size(tmp_path: Path, resize: str) -> None:
    spec = tiny_spec(output="mask", resize=resize)
    with Segmenter.open(write_model(tmp_path / "mask.onnx", spec)) as segmenter:
        mask = segmenter.segment(_frame(200, 200)).mask
    assert mask.shape == (200, 200) and mask.max() < 5


def test_any_thread_may_call_and_gets_its_own_answer(model_path: Path) -> None:
    frames = [_frame(seed=seed) for seed in range(4)]
    wrong: List[Any] = []
    with Segmenter.open(model_path, threads=1) as segmenter:
        expected = [segmenter.segment(frame).mask for frame in frames]

        def use(index: int) -> None:
            for _ in range(5):
                if not np.array_equal(segmenter.segment(frames[index]).mask, expected[index]):
                    wrong.append(index)

        threads = [threading.Thread(target=use, args=(index,)) for index in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE_S)
    assert not wrong and not any(thread.is_alive() for thread in threads)


def test_a_bad_frame_leaves_the_segmenter_usable() -> None:
    segmenter = Segmenter(NumpyEngine())
    with pytest.raises(FrameError, match="grey"):
        segmenter.segment(np.zeros((48, 64), np.uint8))
    assert segmenter.segment(_frame()).mask.shape == (90, 130)


def test_a_network_that_gives_nan_is_an_error() -> None:
    class Broken(NumpyEngine):
        def _infer(self) -> np.ndarray:
            self._output[:] = np.nan
            return self._output

    with pytest.raises(EngineError, match="NaN"):
        Segmenter(Broken()).segment(_frame())


def test_close_may_be_called_again_and_use_after_it_is_an_error() -> None:
    engine = NumpyEngine()
    segmenter = Segmenter(engine)
    segmenter.close()
    segmenter.close()
    assert engine.released == 1
    with pytest.raises(EngineError, match="closed"):
        segmenter.segment(_frame())


def test_a_region_is_segmented_as_a_frame_of_its_own(model_path: Path) -> None:
    frame = _frame(100, 160)
    lower = np.ascontiguousarray(frame[50:, 40:])
    with Segmenter.open(model_path) as whole, Segmenter.open(model_path, region="0.25,0.5,1,1") as part:
        expected = whole.segment(lower).mask
        result = part.segment(frame)
        out = np.zeros((100, 160), np.uint8)
        again = part.segment(frame, out=out)
    np.testing.assert_array_equal(result.mask[50:, 40:], expected)
    assert (result.mask[:50] == 255).all() and (result.mask[:, :40] == 255).all()
    assert again.mask is out and (out == result.mask).all()


def test_groups_are_the_classes_of_everything_after_the_network(model_path: Path) -> None:
    frame = _frame()
    with Segmenter.open(model_path) as plain, Segmenter.open(model_path, groups=["drivable=road,car"]) as grouped:
        classes, result = plain.segment(frame).mask, grouped.segment(frame)
    assert result.spec.class_names == grouped.spec.class_names == ("drivable", "other")
    assert result.spec.palette == (tiny_spec().palette[0], (96, 96, 96))
    np.testing.assert_array_equal(result.mask == 0, np.isin(classes, (0, 3)))
    assert set(np.unique(result.mask)) <= {0, 1}


def test_confidence_is_the_winners_probability_and_only_on_demand(model_path: Path) -> None:
    frame = _frame(64, 96)
    picture = np.empty((1, 3, 64, 96), np.float32)
    preprocess(frame, tiny_spec(), picture)
    logits = tiny_logits(picture)
    with Segmenter.open(model_path) as plain, Segmenter.open(model_path, confidence=True) as sure:
        assert plain.segment(frame).confidence is None
        result = sure.segment(frame)
    assert result.confidence is not None and result.confidence.dtype == np.uint8
    probability = 1 / np.exp(logits - logits.max(0)).sum(0)
    centres = result.confidence[3:61:8, 3:93:8].astype(float), result.confidence[4:61:8, 4:93:8].astype(float)
    lo, hi = probability.min() * 255, probability.max() * 255
    assert lo - 60 <= centres[0].min() and centres[1].max() <= hi + 60
    with Segmenter.open(model_path, confidence=True, region="0,0.5,1,1") as part:
        half = part.segment(frame)
    assert half.confidence is not None and (half.confidence[:32] == 0).all() and half.confidence[32:].all()


def test_confidence_of_a_network_that_gives_masks_is_its_second_output(tmp_path: Path) -> None:
    spec = tiny_spec(output="mask", output_stride=1)
    with_it = write_model(tmp_path / "sure.onnx", spec, confidence="float32")
    without = write_model(tmp_path / "unsure.onnx", spec)
    engine = open_engine(with_it)
    with Segmenter(engine, confidence=True) as segmenter:
        result = segmenter.segment(_frame(128, 192))
        given = engine.confidence
        assert given is not None and result.confidence is not None
        np.testing.assert_array_equal(result.confidence[::2, ::2], np.rint(given * 255).astype(np.uint8))
    with pytest.raises(ConfigError, match="without saying how sure"):
        Segmenter.open(without, confidence=True)


class _Path(FramePath):
    """Gives a mask of one class; writes down what it is asked."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.asked: List[str] = []
        self.size_hw = 0, 0

    def put(self, frame: np.ndarray, *, alpha: Optional[float] = None) -> None:
        self.asked.append("put")
        self.size_hw = frame.shape[0], frame.shape[1]
        self.clock.sleep(0.001)

    def run(self) -> None:
        self.asked.append("run")
        self.clock.sleep(0.002)

    def take(self, mask: np.ndarray, overlay: Optional[np.ndarray] = None) -> None:
        self.asked.append("take")
        assert mask.shape == self.size_hw
        mask.fill(3)
        self.clock.sleep(0.004)


class _WithPath(NumpyEngine):
    """An engine with a way of its own; ``offers`` none: it says so, as one without a compiler does."""

    def __init__(self, offers: bool = True) -> None:
        super().__init__(tiny_spec())
        self.clock = FakeClock()
        self.path = _Path(self.clock) if offers else None
        self.asked_with: List[Any] = []

    def frame_path(
        self, classes: Optional[np.ndarray] = None, palette: Sequence[Tuple[int, int, int]] = ()
    ) -> Optional[FramePath]:
        self.asked_with.append((classes, tuple(palette)))
        return self.path


def test_an_engines_own_way_from_frame_to_mask_is_taken() -> None:
    engine = _WithPath()
    segmenter = Segmenter(engine, clock=engine.clock)
    result, out = segmenter.segment(_frame()), np.empty((20, 30), np.uint8)
    assert (result.mask == 3).all() and result.mask.shape == (90, 130)
    assert result.timing == {"preprocess": 1.0, "infer": 2.0, "postprocess": 4.0}
    assert segmenter.segment(_frame(20, 30), out=out).mask is out and (out == 3).all()
    assert engine.path is not None and engine.path.asked == ["put", "run", "take"] * 2
    assert engine.asked_with == [(None, tiny_spec().palette)]  # once
    with pytest.raises(FrameError, match="grey"):
        segmenter.segment(np.zeros((48, 64), np.uint8))
    with pytest.raises(FrameError, match="out is"):
        segmenter.segment(_frame(), out=out)


def test_an_engines_own_way_joins_the_classes_itself() -> None:
    engine = _WithPath()
    groups = ClassGroups.parse(["drivable=road,car"], tiny_spec())
    segmenter = Segmenter(engine, groups=groups, clock=engine.clock)
    assert (segmenter.segment(_frame()).mask == 3).all()  # not mapped again
    assert engine.asked_with[0][0] is groups.table and engine.asked_with[0][1] == segmenter.spec.palette


@pytest.mark.parametrize("options", [{"region": RegionOfInterest(0, 0.5, 1, 1)}, {"confidence": True}])
def test_a_region_and_a_confidence_go_the_way_of_all_engines(options: Any) -> None:
    engine = _WithPath()
    expected = Segmenter(NumpyEngine(), **options).segment(_frame()).mask
    np.testing.assert_array_equal(Segmenter(engine, **options).segment(_frame()).mask, expected)
    assert engine.path is not None and not engine.path.asked


def test_an_engine_that_offers_no_way_is_asked_once() -> None:
    engine = _WithPath(offers=False)
    segmenter = Segmenter(engine)
    for _ in range(2):
        np.testing.assert_array_equal(segmenter.segment(_frame()).mask, Segmenter(NumpyEngine()).segment(_frame()).mask)
    assert len(engine.asked_with) == 1


@pytest.mark.parametrize("kind", ["Segmenter", "SegmenterPool", "Pipeline"])
def test_what_cannot_go_to_another_process_says_what_can(kind: str) -> None:
    import copy
    import pickle

    from rtda_deploy.errors import RtdaError
    from rtda_runtime.pipeline.pipeline import Pipeline
    from rtda_runtime.pool import SegmenterPool

    found = {"Segmenter": Segmenter, "SegmenterPool": SegmenterPool, "Pipeline": Pipeline}[kind]
    thing = object.__new__(found)
    for move in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(RtdaError, match=f"a {kind} can be neither pickled nor copied") as caught:
            move(thing)
        assert f"{kind}.open(path)" in caught.value.hint and isinstance(caught.value, TypeError)
