"""What becomes of chosen frames: the second look, the room that is made for the best, its files."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any, Callable, Dict, List, Optional, Sequence

from rtda_deploy.errors import RtdaError
from rtda_runtime._opencv import opencv
from rtda_runtime.pool import AnySegmenter
from rtda_runtime.result import Result
from rtda_runtime.shift.collecting.blur import blur_classes
from rtda_runtime.shift.collecting.doubt import Doubt, Doubter
from rtda_runtime.shift.collecting.limits import CollectOptions
from rtda_runtime.shift.collecting.record import Origin, frame_line, kept_of_line
from rtda_runtime.shift.collecting.replacement import Kept, KeptFrames
from rtda_runtime.shift.collecting.store import FrameStore
from rtda_runtime.shift.collecting.window import Candidate
from rtda_runtime.sinks.masks import own_png
from rtda_runtime.sinks.publish.messages import wall_clock_offset_ns

__all__ = ["Keeper"]

_JPEG_QUALITY = 95
_ROUNDED_UP = 64 << 10  # bytes that the files of a frame may take beyond their content: blocks, a line, a folder entry
_log = logging.getLogger(__name__)


class Keeper:
    """Keeps the best of several candidates, where it is worth more than what has to go for it.

    Args:
        store: The folder; whoever opened it closes it.
        options: Limits.
        blurred: Indices of classes to blur.
        engine: Opens the second engine; None: there is none.

    Attributes:
        origin: Where frames come from; set before the first is kept.
        counts: ``kept``, ``replaced`` and ``not_worth``, so far.
    """

    def __init__(
        self,
        store: FrameStore,
        options: CollectOptions,
        blurred: Sequence[int],
        engine: Optional[Callable[[], AnySegmenter]],
    ) -> None:
        self._store, self._options, self._blurred = store, options, blurred
        self._doubter = Doubter(engine, flip=options.flip)
        self._kept: Optional[KeptFrames] = None
        self._told_full = False
        self.origin = Origin("", "", None, "")
        self.counts = {"kept": 0, "replaced": 0, "not_worth": 0}

    def keep_best(self, candidates: Sequence[Candidate]) -> Optional[Candidate]:
        """Keep the most valuable of these; None: it is not worth a place.

        Raises:
            FileAccessError: If the disk refuses.
        """
        judged = [(candidate, self._doubt_of(candidate.result)) for candidate in candidates]
        kept = self._kept_frames(len(candidates[0].look.vector))
        wanted = [self._as_kept(candidate, doubt) for candidate, doubt in judged]
        best = max(range(len(wanted)), key=lambda index: kept.worth(wanted[index]))
        return candidates[best] if self._keep(*judged[best], wanted[best], kept) else None

    def close(self) -> None:
        """Close the second engine. Calling it again does nothing."""
        self._doubter.close()

    def _doubt_of(self, result: Result) -> Doubt:
        try:
            return self._doubter(result)
        except RtdaError as err:  # no memory for a second engine, say: frames are judged without it
            _log.warning("frames are collected without a second look at them: %s", err)
            self._doubter.close()
            self._doubter = Doubter(None, flip=False)
            return self._doubter(result)

    def _kept_frames(self, numbers: int) -> KeptFrames:
        """The frames that are there and may give way, read when the first is to be kept; corrected ones may not."""
        if self._kept is None:
            lines, sizes = self._store.lines, self._store.sizes
            may = [name for name in lines if not self._store.corrected(name)]
            found = [kept_of_line(lines[name], sizes[name], numbers) for name in may]
            known = [frame for frame in found if frame is not None]
            self._kept = KeptFrames(known, control=self._options.control, per_class=self._options.per_class)
        return self._kept

    def _as_kept(self, candidate: Candidate, doubt: Doubt) -> Kept:
        spec = candidate.result.spec
        subject = doubt.subject(candidate.result.mask, spec.num_classes)
        name = None if subject is None else spec.class_names[subject]
        score = candidate.novelty * doubt.disagreement
        return Kept("", score, candidate.why, name, 0, candidate.look.vector)

    def _keep(self, candidate: Candidate, doubt: Doubt, wanted: Kept, kept: KeptFrames) -> bool:
        result = candidate.result
        time_ns = wall_clock_offset_ns() + result.captured_ns  # read anew: a robot's clock is set after it has booted
        name = self._store.new_id(time_ns)
        files = self._encoded(result, doubt)
        new = dataclasses.replace(wanted, id=name, size=sum(map(len, files.values())))
        gone = self._make_room(new, kept)
        if gone is None:
            self.counts["not_worth"] += 1
            return False
        for frame in gone:
            self._store.remove(frame.id)
            self.counts["replaced"] += 1
        kept.remove(gone)
        self._store.write(frame_line(name, time_ns, candidate, doubt, wanted.subject, self.origin), files)
        kept.add(new)
        self.counts["kept"] += 1
        return True

    def _make_room(self, new: Kept, kept: KeptFrames) -> Optional[List[Kept]]:
        """The frames that give way; None: the new one is not worth it, or the disk has no room."""
        while True:
            free = self._store.free_bytes - self._options.free_bytes - _ROUNDED_UP
            staying = self._store.bytes - kept.size
            limit = min(self._options.disk_bytes - staying, kept.size + free)
            if new.size > limit:
                full = "the disk is as full as it may be" if free < new.size else "disk= has no room for it"
                self._tell_full(new, full)
            gone = kept.giving_way(new, limit)
            corrected = [frame for frame in gone or () if self._store.corrected(frame.id)]  # while this run goes on
            if not corrected:
                return gone
            kept.remove(corrected)

    def _tell_full(self, new: Kept, reason: str) -> None:
        if not self._told_full:
            self._told_full = True
            _log.warning("nothing can be collected now: %s (%.0f kB a frame)", reason, new.size / 1e3)

    def _encoded(self, result: Result, doubt: Doubt) -> Dict[str, bytes]:
        cv2: Any = opencv("to collect frames")
        masks = [mask for mask in (result.mask, result.compared) if mask is not None]
        picture = blur_classes(result.frame, masks, self._blurred) if self._blurred else result.frame
        jpeg = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1].tobytes()
        files = {"images": jpeg, "labels": own_png(result.mask)}
        if doubt.confidence is not None:
            files["confidence"] = own_png(doubt.confidence)
        return files
