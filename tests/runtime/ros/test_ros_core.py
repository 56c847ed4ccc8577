from __future__ import annotations

import array
import contextlib
import json
import threading
from pathlib import Path
from typing import Any, Callable, Collection, Dict, List

import cv2
import numpy as np
import pytest
from patience import PATIENCE_S, wait_for
from runtime.fakes import NumpyEngine
from runtime.models import PALETTE, tiny_spec, write_model

from rtda_deploy.errors import ConfigError, EngineError, FrameError
from rtda_runtime import Segmenter
from rtda_runtime.fleet.store import ModelStore
from rtda_runtime.ros import (
    CompressedMessage,
    Header,
    ImageMessage,
    Outputs,
    SegmentationWorker,
    frame_from_compressed,
    frame_from_image,
    image_from_array,
    label_info,
    open_candidate,
    open_segmenter,
)
from rtda_runtime.ros import worker as worker_module
from rtda_runtime.ros.worker import output_names

HEADER = Header(1_700_000_000, 123_456_789, "front_optical")


def picture(seed: int = 0, size_hw: tuple[int, int] = (64, 96)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size_hw, 3), dtype=np.uint8)


def message(
    pixels: np.ndarray, encoding: str, *, padding: int = 0, cut: int = 0, header: Header = HEADER
) -> ImageMessage:
    """An image message; each row is followed by ``padding`` bytes, ``cut`` bytes are missing at its end."""
    rows = pixels.reshape(pixels.shape[0], -1)
    padded = np.pad(rows, ((0, 0), (0, padding)), constant_values=77)
    data = padded.tobytes()
    return ImageMessage(header, pixels.shape[0], pixels.shape[1], encoding, 0, padded.shape[1], data[: len(data) - cut])


def encoded(bgr: np.ndarray, encoding: str) -> np.ndarray:
    """The picture in the layout of ``encoding``, by NumPy alone."""
    alpha = np.full((*bgr.shape[:2], 1), 200, np.uint8)
    return {
        "bgr8": bgr,
        "8UC3": bgr,
        "rgb8": bgr[..., ::-1],
        "bgra8": np.concatenate([bgr, alpha], 2),
        "8UC4": np.concatenate([bgr, alpha], 2),
        "rgba8": np.concatenate([bgr[..., ::-1], alpha], 2),
    }[encoding]


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize("encoding", ["bgr8", "8UC3", "rgb8", "bgra8", "8UC4", "rgba8"])
def test_every_encoding_becomes_the_same_bgr_frame(encoding: str, padding: int) -> None:
    bgr = picture()
    frame = frame_from_image(message(encoded(bgr, encoding), encoding, padding=padding))
    assert frame.dtype == np.uint8 and frame.flags.c_contiguous and np.array_equal(frame, bgr)


@pytest.mark.parametrize("padding", [0, 3])
@pytest.mark.parametrize("encoding", ["mono8", "8UC1"])
def test_grey_pictures_become_three_equal_channels(encoding: str, padding: int) -> None:
    grey = picture()[..., 0]
    frame = frame_from_image(message(grey, encoding, padding=padding))
    assert all(np.array_equal(frame[..., channel], grey) for channel in range(3))


def test_the_last_row_may_lack_its_padding() -> None:
    bgr = picture()
    assert np.array_equal(frame_from_image(message(bgr, "bgr8", padding=5, cut=5)), bgr)


def test_data_may_be_what_each_ros_gives() -> None:
    bgr = picture()
    for data in (bgr.tobytes(), array.array("B", bgr.tobytes()), bytearray(bgr.tobytes()), bgr.reshape(-1)):
        assert np.array_equal(frame_from_image(ImageMessage(HEADER, 64, 96, "bgr8", 0, 288, data)), bgr)


def test_a_frame_without_padding_is_no_copy_and_cannot_change_the_message() -> None:
    data = bytearray(picture().tobytes())
    frame = frame_from_image(ImageMessage(HEADER, 64, 96, "bgr8", 0, 288, data))
    assert np.shares_memory(frame, np.frombuffer(data, np.uint8))
    with pytest.raises(ValueError, match="read-only"):
        frame[0, 0, 0] = 1


def test_the_byte_order_of_single_bytes_does_not_matter() -> None:
    bgr = picture()
    assert np.array_equal(frame_from_image(ImageMessage(HEADER, 64, 96, "bgr8", 1, 288, bgr.tobytes())), bgr)


@pytest.mark.parametrize("encoding", ["16UC1", "mono16", "bgr16", "32FC1", "bayer_rggb16", "nv24", ""])
def test_other_encodings_are_refused_with_those_that_are_known(encoding: str) -> None:
    with pytest.raises(FrameError) as caught:
        frame_from_image(ImageMessage(HEADER, 4, 4, encoding, 0, 8, bytes(32)))
    assert repr(encoding) in caught.value.message and "bgr8, rgb8, mono8, bgra8, rgba8" in caught.value.hint
    assert bool(caught.value.why) == (encoding not in ("nv24", ""))


@pytest.mark.parametrize(
    ("height", "width", "step", "size"),
    [(4, 6, 18, 71), (4, 6, 17, 72), (0, 6, 18, 72), (4, 0, 0, 0), (4, 6, 18, 0), (4, 6, 0, 72), (1 << 30, 6, 18, 72)],
)
def test_a_message_whose_fields_do_not_fit_is_refused(height: int, width: int, step: int, size: int) -> None:
    with pytest.raises(FrameError, match=rf"image is {width}x{height} bgr8 with step {step} and {size} bytes"):
        frame_from_image(ImageMessage(HEADER, height, width, "bgr8", 0, step, bytes(size)))


def test_compressed_images_are_decoded() -> None:
    bgr = picture()
    png = cv2.imencode(".png", bgr)[1].tobytes()
    jpeg = cv2.imencode(".jpg", np.full((64, 96, 3), (10, 100, 200), np.uint8))[1].tobytes()
    assert np.array_equal(frame_from_compressed(CompressedMessage(HEADER, "png", png)), bgr)
    decoded = frame_from_compressed(CompressedMessage(HEADER, "bgr8; jpeg compressed bgr8", array.array("B", jpeg)))
    assert np.abs(decoded.astype(int) - (10, 100, 200)).max() < 4  # JPEG's colours
    grey = cv2.imencode(".png", bgr[..., 0])[1].tobytes()
    assert frame_from_compressed(CompressedMessage(HEADER, "mono8; png compressed ", grey)).shape == (64, 96, 3)


@pytest.mark.parametrize(
    ("format_", "data", "said"),
    [
        ("jpeg", b"", "of 0 bytes"),
        ("jpeg", b"\xff\xd8\xff\xe0 no picture", "cut off"),
        ("jpeg", b"no picture", "is no picture"),
        ("jpeg", cv2.imencode(".jpg", picture())[1].tobytes()[:-9], "cut off"),
        ("png", cv2.imencode(".png", np.zeros((4, 4), np.uint16))[1].tobytes(), "has 16 bits"),
        ("16UC1; compressedDepth png", b"x", "compressedDepth"),
    ],
)
def test_what_is_no_picture_is_refused(format_: str, data: bytes, said: str) -> None:
    with pytest.raises(FrameError, match=said):
        frame_from_compressed(CompressedMessage(HEADER, format_, data))


def test_masks_and_pictures_become_messages_and_come_back() -> None:
    bgr = picture()
    made = image_from_array(bgr, HEADER)
    assert (made.encoding, made.step, made.height, made.width, made.header) == ("bgr8", 288, 64, 96, HEADER)
    assert np.array_equal(frame_from_image(made), bgr)
    mask = bgr[:, ::2, 1]  # not contiguous
    made = image_from_array(mask, HEADER)
    assert (made.encoding, made.step, made.is_bigendian) == ("mono8", 48, 0)
    assert np.array_equal(np.frombuffer(made.data, np.uint8).reshape(64, 48), mask)
    for wrong in (mask.astype(np.uint16), np.zeros((4, 4, 4), np.uint8), np.zeros(4, np.uint8)):
        with pytest.raises(FrameError, match="expected uint8"):
            image_from_array(wrong, HEADER)


def test_labels_are_the_models_and_fit_json() -> None:
    info = label_info(tiny_spec(), HEADER)
    assert [(one.class_id, one.class_name) for one in info.class_map][:2] == [(0, "road"), (1, "building")]
    values = json.loads(info.to_json())
    assert values["class_map"][2] == {"class_id": 2, "class_name": "sky", "color": list(PALETTE[2])}
    assert values["unlabeled"] == 255 and values["threshold"] == 0.0


# --- Parameters ---

_PARAMETERS: Dict[str, Any] = {"provider": "cpu", "threads": 0, "spec": "", "region": "", "confidence": False}


@pytest.mark.parametrize("groups", [[], [""], None, ""])
def test_without_groups_and_region_the_network_is_as_it_is(groups: Any, model_path: Path) -> None:
    with open_segmenter({**_PARAMETERS, "model": str(model_path), "groups": groups}) as segmenter:
        assert segmenter.spec == tiny_spec()
        assert segmenter.segment(picture()).confidence is None


@pytest.mark.parametrize("groups", [["drivable=road"], "drivable=road", ["", "drivable=road"]])
def test_groups_region_and_confidence_are_those_of_the_segmenter(groups: Any, model_path: Path) -> None:
    values = {**_PARAMETERS, "model": str(model_path), "groups": groups, "region": "0,0.5,1,1", "confidence": True}
    with open_segmenter(values) as segmenter:
        result = segmenter.segment(picture())
        info = label_info(segmenter.spec, HEADER)
    assert [one.class_name for one in info.class_map] == ["drivable", "other"]
    assert (result.mask[:32] == 255).all() and (result.mask[32:] < 2).all()
    assert result.confidence is not None and result.confidence[32:].all() and not result.confidence[:32].any()


def test_a_model_may_be_the_current_one_of_a_robot_s_models(model_path: Path, tmp_path: Path) -> None:
    store = ModelStore(tmp_path / "models" / "robot")
    store.promote(store.add(model_path).digest, {})
    values = {**_PARAMETERS, "model": str(store.folder), "groups": [], "shadow": f"{store.folder}@current"}
    candidate = open_candidate(values)
    assert candidate is not None and store.current is not None
    with candidate, open_segmenter(values) as segmenter:
        assert segmenter.path == candidate.path == store.current.file


def test_a_candidate_s_masks_mean_what_the_network_s_do(model_path: Path, tmp_path: Path) -> None:
    values = {**_PARAMETERS, "model": str(model_path), "groups": ["drivable=road"], "region": "0,0.5,1,1", "shadow": ""}
    assert open_candidate(values) is None
    bare, spec = write_model(tmp_path / "bare.onnx", with_spec=False), tmp_path / "spec.json"
    tiny_spec().save(spec)
    candidate = open_candidate({**values, "shadow": str(bare), "spec": str(spec)})
    assert candidate is not None
    with candidate, open_segmenter({**values, "confidence": True}) as segmenter:
        assert candidate.spec == segmenter.spec and candidate.spec.class_names == ("drivable", "other")
        np.testing.assert_array_equal(candidate.segment(picture()).mask, segmenter.segment(picture()).mask)


# --- The worker ---


class Published:
    """Collects outputs, and waits for them."""

    def __init__(self) -> None:
        self.outputs: List[Outputs] = []
        self._changed = threading.Condition()

    def __call__(self, outputs: Outputs) -> None:
        with self._changed:
            self.outputs.append(outputs)
            self._changed.notify_all()

    def wait_for(self, count: int) -> List[Outputs]:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.outputs) >= count, PATIENCE_S), f"only {len(self.outputs)}"
            return list(self.outputs)


@pytest.fixture()
def make(request: pytest.FixtureRequest) -> Callable[..., SegmentationWorker]:
    def make_one(publish: Any, engine: Any = None, **options: Any) -> SegmentationWorker:
        worker = SegmentationWorker(Segmenter(engine or NumpyEngine()), publish, **options)
        request.addfinalizer(worker.close)
        return worker

    return make_one


def test_one_image_gives_three_pictures_with_its_header(make: Any, model_path: Path) -> None:
    published = Published()
    make(published).give(message(picture()[..., ::-1], "rgb8", padding=7))
    (outputs,) = published.wait_for(1)
    with Segmenter.open(model_path) as segmenter:
        expected = segmenter.segment(picture()).mask
    assert {outputs.header, outputs.class_mask.header, outputs.color_mask.header, outputs.overlay.header} == {HEADER}
    mask = np.frombuffer(outputs.class_mask.data, np.uint8).reshape(64, 96)
    assert outputs.class_mask.encoding == "mono8" and np.array_equal(mask, expected)
    colours = frame_from_image(outputs.color_mask)
    assert np.array_equal(colours, np.array(PALETTE, np.uint8)[mask][..., ::-1])
    overlay = frame_from_image(outputs.overlay)
    assert overlay.shape == (64, 96, 3) and not np.array_equal(overlay, picture())


@pytest.mark.parametrize("sure", [False, True])
def test_the_confidence_is_published_where_the_segmenter_tells_it(sure: bool) -> None:
    published = Published()
    segmenter = Segmenter(NumpyEngine(), confidence=sure)
    with contextlib.closing(SegmentationWorker(segmenter, published)) as worker:
        worker.give(message(picture(), "bgr8"))
        (outputs,) = published.wait_for(1)
    assert output_names(confidence=sure)[3:] == (("confidence",) if sure else ())
    if not sure:
        assert outputs.confidence is None
        return
    assert (outputs.confidence.encoding, outputs.confidence.header) == ("mono8", HEADER)
    expected = Segmenter(NumpyEngine(), confidence=True).segment(picture()).confidence
    assert bytes(outputs.confidence.data) == expected.tobytes()


def test_pictures_are_drawn_into_the_same_memory_again(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    published, addresses = Published(), []

    def keep(pixels: np.ndarray, header: Header) -> ImageMessage:
        addresses.append((header.sec, pixels.ctypes.data))
        return image_from_array(pixels, header)

    monkeypatch.setattr(worker_module, "image_from_array", keep)
    worker = make(published)
    between = []
    for number in (1, 2, 3):
        worker.give(message(picture(size_hw=(480, 640)), "bgr8", header=Header(number, 0, "")))
        published.wait_for(number)
        between += [np.empty((480, 640, 3), np.uint8) for _ in range(3)]  # takes what was freed
        wait_for(lambda number=number: worker.stats["published"] == number)
    second, third = ({address for sec, address in addresses if sec == number} for number in (2, 3))
    assert second == third and len(second) == 3 and between


def test_only_what_is_wanted_is_made(make: Any) -> None:
    published = Published()
    wants: List[Collection[str]] = [("overlay",), ("class_mask",), ()]
    worker = make(published, wanted=lambda: wants[0])
    worker.give(message(picture(), "bgr8"))
    (first,) = published.wait_for(1)
    assert first.overlay is not None and first.class_mask is None and first.color_mask is None
    wants.pop(0)
    worker.give(message(picture(), "bgr8"))
    second = published.wait_for(2)[1]
    assert second.class_mask is not None and second.overlay is None


def test_the_network_rests_while_nobody_listens(make: Any) -> None:
    ran: List[int] = []
    worker = make(Published(), NumpyEngine(before=lambda: ran.append(1)), wanted=lambda: ())
    worker.give(message(picture(), "bgr8"))
    wait_for(lambda: worker.stats["unwanted"] == 1)
    assert ran == [] and worker.stats["published"] == 0


def test_the_newest_image_wins_and_the_others_are_counted(make: Any) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow() -> None:
        begun.set()
        assert go_on.wait(PATIENCE_S)

    published = Published()
    worker = make(published, NumpyEngine(before=slow))
    stamps = [Header(10, number, "front") for number in range(9)]
    worker.give(message(picture(), "bgr8", header=stamps[0]))
    assert begun.wait(PATIENCE_S)
    for stamp in stamps[1:]:  # none of these calls waits for the network
        worker.give(message(picture(), "bgr8", header=stamp))
    go_on.set()
    assert [outputs.header for outputs in published.wait_for(2)] == [stamps[0], stamps[8]]
    assert (worker.stats["received"], worker.stats["replaced"]) == (9, 7)


def test_stale_images_are_left_out_and_counted(make: Any) -> None:
    published = Published()
    worker = make(published, now_ns=lambda: 20_000_000_000, max_age_s=0.5)
    worker.give(message(picture(), "bgr8", header=Header(19, 400_000_000, "old")))
    wait_for(lambda: worker.stats["stale"] == 1)
    worker.give(message(picture(), "bgr8", header=Header(19, 600_000_000, "new")))
    worker_outputs = published.wait_for(1)
    assert [outputs.header.frame_id for outputs in worker_outputs] == ["new"]
    wait_for(lambda: worker.stats["published"] == 1)
    assert worker.stats["age_ms"] == pytest.approx(400)


def test_an_image_without_a_stamp_is_never_stale(make: Any) -> None:
    published = Published()
    make(published, max_age_s=0.5).give(message(picture(), "bgr8", header=Header(0, 0, "")))
    published.wait_for(1)


def test_images_that_cannot_be_used_are_told_once_and_do_not_stop_it(make: Any) -> None:
    published, said = Published(), []
    worker = make(published, warn=said.append)
    for _ in range(3):
        worker.give(ImageMessage(HEADER, 4, 4, "16UC1", 0, 8, bytes(32)))
        count = worker.stats["refused"]
        wait_for(lambda count=count: worker.stats["refused"] > count or worker.stats["replaced"] > 0)
    worker.give(CompressedMessage(HEADER, "jpeg", b"no"))
    wait_for(lambda: len(said) == 2)
    worker.give(message(picture(), "bgr8"))
    published.wait_for(1)
    assert "'16UC1'" in said[0] and "image_proc" in said[0] and "is no picture" in said[1]


def test_reasons_without_end_do_not_fill_memory(make: Any) -> None:
    said: List[str] = []
    worker = make(Published(), warn=said.append)
    for number in range(80):
        worker.give(ImageMessage(HEADER, 4, 4, f"kind{number}", 0, 8, bytes(32)))
        wait_for(lambda number=number: worker.stats["refused"] == number + 1)
    assert len(said) == 50


def test_a_publisher_that_fails_while_ros_ends_does_not_stop_it(make: Any) -> None:
    said: List[str] = []

    def fail(outputs: Outputs) -> None:
        raise ValueError("publisher is gone")

    worker = make(fail, warn=said.append)
    worker.give(message(picture(), "bgr8"))
    wait_for(lambda: worker.stats["refused"] == 1)
    assert "publisher is gone" in said[0]


def test_sizes_may_change_between_images(make: Any) -> None:
    published = Published()
    worker = make(published)
    for count, size_hw in enumerate([(64, 96), (48, 80), (64, 96)], 1):
        worker.give(message(picture(size_hw=size_hw), "bgr8"))
        outputs = published.wait_for(count)[-1]
        assert (outputs.class_mask.height, outputs.class_mask.width) == size_hw


def test_closing_ends_the_thread_and_the_engine() -> None:
    engine = NumpyEngine()
    worker = SegmentationWorker(Segmenter(engine), lambda outputs: None)
    assert "rtda-segment" in {thread.name for thread in threading.enumerate()}
    worker.close()
    worker.close()
    assert "rtda-segment" not in {thread.name for thread in threading.enumerate()} and engine.released == 1
    worker.give(message(picture(), "bgr8"))


def test_a_negative_age_is_refused() -> None:
    with pytest.raises(ConfigError, match="max_age must not be negative"):
        SegmentationWorker(Segmenter(NumpyEngine()), lambda outputs: None, max_age_s=-1)


# --- A candidate beside it ---


def told(worker: SegmentationWorker) -> Dict[str, str]:
    return dict(worker.diagnostic.values)


def test_a_candidate_looks_at_the_same_images_and_the_health_says_how_far_it_agrees(make: Any) -> None:
    published, candidate = Published(), NumpyEngine()
    worker = make(published, shadow=Segmenter(candidate))
    assert (told(worker)["shadow_compared"], told(worker)["shadow_agreement"]) == ("0", "")
    worker.give(message(picture(), "bgr8"))
    wait_for(lambda: told(worker)["shadow_compared"] == "1")
    values = told(worker)
    assert values["shadow_agreement"] == values["shadow_newest"] == "1.0" and values["shadow_error"] == ""
    assert (worker.diagnostic.level, worker.diagnostic.message) == (0, "segmenting")
    assert "shadow_by_class" not in values
    worker.close()
    assert candidate.released == 1


def test_the_candidate_rests_while_images_are_replaced(make: Any) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def slow() -> None:
        begun.set()
        assert go_on.wait(PATIENCE_S)

    published = Published()
    worker = make(published, NumpyEngine(before=slow), shadow=Segmenter(NumpyEngine()))
    go_on.set()
    worker.give(message(picture(), "bgr8"))
    wait_for(lambda: told(worker)["shadow_compared"] == "1")
    go_on.clear()
    begun.clear()
    worker.give(message(picture(1), "bgr8"))
    assert begun.wait(PATIENCE_S)
    for seed in (2, 3):
        worker.give(message(picture(seed), "bgr8"))
    go_on.set()
    published.wait_for(3)
    wait_for(lambda: worker.stats["published"] == 3)
    assert int(told(worker)["shadow_behind"]) >= 1 and worker.stats["replaced"] == 1


def test_a_candidate_that_fails_is_a_warning_and_the_network_goes_on(make: Any) -> None:
    def fail() -> None:
        raise EngineError("the network gave NaN", hint="export it again")

    published = Published()
    worker = make(published, shadow=Segmenter(NumpyEngine(before=fail)))
    worker.give(message(picture(), "bgr8"))
    wait_for(lambda: worker.diagnostic.level == 1)
    assert worker.diagnostic.message == "the shadow stopped: the network gave NaN"
    worker.give(message(picture(), "bgr8"))
    published.wait_for(2)


def test_a_candidate_of_other_classes_is_refused(make: Any) -> None:
    other = Segmenter(NumpyEngine(tiny_spec(class_names=("road", "b", "sky", "car", "vegetation"))))
    with pytest.raises(ConfigError, match="other classes than the deployed network"):
        make(Published(), shadow=other)
