"""What every source must do. A new source inherits :class:`SourceContract` and says how to open a short one."""

from __future__ import annotations

import threading
import time
from typing import Any, Callable, List

import numpy as np
import pytest
from patience import PATIENCE_S

from rtda_deploy.errors import CameraError, SourceError
from rtda_runtime.sources import Frame, Source

OpenSource = Callable[[], Source]
SECRET = "hunter2"


class SourceContract:
    """Subclasses define the fixture ``open_short``: opens a source of :attr:`frames` pictures of :attr:`size_wh`."""

    frames = 5
    size_wh = (64, 48)
    live = False
    ends = True  # False: a stream, whose end is a camera that was lost

    def test_it_gives_every_frame_in_order_and_then_ends(self, open_short: OpenSource) -> None:
        with open_short() as source:
            frames = self.read_all(source)
            sequences = [frame.sequence for frame in frames]
            assert sequences == sorted(set(sequences)) and (sequences[0] == 0 or source.outdated)
            # On a busy machine a reader may come so late that a camera's frames are old by then.
            assert len(sequences) + (source.outdated if self.live else 0) == self.frames
            assert sequences[-1] == self.frames - 1 or source.outdated
            if self.ends:
                assert source.read(1.0) is None and source.read(1.0) is None

    def test_frames_are_bgr_uint8_that_own_their_memory(self, open_short: OpenSource) -> None:
        width, height = self.size_wh
        with open_short() as source:
            frames = self.read_all(source)
        for frame in frames:
            assert frame.image.dtype == np.uint8 and frame.image.shape == (height, width, 3)
            assert frame.image.flags.c_contiguous
        assert len({frame.image.ctypes.data for frame in frames}) == len(frames)

    def test_it_says_what_it_is(self, open_short: OpenSource) -> None:
        with open_short() as source:
            assert source.live is self.live
            assert source.size_wh == self.size_wh
            assert source.num_frames in (None, self.frames)
            assert source.fps is None or source.fps > 0
            assert source.clock == "monotonic"
            assert source.name and SECRET not in source.name

    def test_capture_times_are_on_the_clock_of_perf_counter(self, open_short: OpenSource) -> None:
        before = time.perf_counter_ns()
        with open_short() as source:
            stamps = [frame.captured_ns for frame in self.read_all(source)]
        stamps = [before, *stamps, time.perf_counter_ns()]
        assert stamps == sorted(stamps)

    def test_a_recording_is_not_older_than_the_call_that_asks_for_it(self, open_short: OpenSource) -> None:
        """Between opening and reading a network is loaded, which is no age of the first frame."""
        with open_short() as source:
            asked_ns = time.perf_counter_ns()
            frame = source.read(5.0)
        assert frame is not None and (source.live or frame.captured_ns >= asked_ns)

    def test_another_thread_may_read_it(self, open_short: OpenSource) -> None:
        got: List[Any] = []
        with open_short() as source:
            thread = threading.Thread(target=lambda: got.append(source.read(5.0)))
            thread.start()
            thread.join(PATIENCE_S)
        assert not thread.is_alive() and got[0].sequence in (0, *range(1, 1 + source.outdated))

    def test_close_may_be_called_again_and_reading_after_it_is_an_error(self, open_short: OpenSource) -> None:
        source = open_short()
        source.read(5.0)
        source.close()
        source.close()
        with pytest.raises(SourceError, match="is closed"):
            source.read(1.0)

    def test_opening_it_twice_gives_the_same_frames(self, open_short: OpenSource) -> None:
        with open_short() as first, open_short() as second:
            one, two = first.read(5.0), second.read(5.0)
        assert one is not None and two is not None
        np.testing.assert_array_equal(one.image, two.image)

    def read_all(self, source: Source) -> List[Frame]:
        """Every frame; a stream's end is the error it must be."""
        frames: List[Frame] = []
        try:
            for _ in range(self.frames + 3):
                frame = source.read(5.0)
                if frame is None:
                    break
                frames.append(frame)
        except CameraError as err:
            assert not self.ends, err
            assert SECRET not in str(err) + err.hint + err.why
        return frames
