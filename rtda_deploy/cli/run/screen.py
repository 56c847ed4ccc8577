"""What ``rtda-deploy run`` shows: the first lines, the live line, the table and the advice."""

from __future__ import annotations

import collections
import contextlib
import logging
import queue
import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, Deque, Dict, Iterator, List, Mapping, Optional, Tuple, Type

if TYPE_CHECKING:
    from rtda_runtime import Overlay, Pipeline, Source
    from rtda_runtime.machine.board_watch import BoardWatch
    from rtda_runtime.pool import AnySegmenter
    from rtda_runtime.shift.alarm import ShiftState

__all__ = ["Screen", "camera_log_silenced", "camera_text", "print_camera", "print_summary", "summary_lines"]

_LIVE_EVERY_S, _PLAIN_EVERY_S = 0.25, 5.0
_CAMERA_LOG = logging.getLogger("rtda_runtime.sources.reconnect")
_RATE_WINDOW_S = 2.0  # the live line's frames per second are those of the last two seconds
_SHORT = (("capture", "capture"), ("preprocess", "pre"), ("infer", "infer"), ("postprocess", "post"))


@contextlib.contextmanager
def camera_log_silenced() -> Iterator[None]:
    """While the block runs the losses of the camera are not logged: the screen tells them. ``--verbose`` logs all."""
    before = _CAMERA_LOG.level
    if not _CAMERA_LOG.isEnabledFor(logging.DEBUG):
        _CAMERA_LOG.setLevel(logging.ERROR)
    try:
        yield
    finally:
        _CAMERA_LOG.setLevel(before)


def print_camera(
    source: Source, segmenter: AnySegmenter, others: Mapping[str, Optional[AnySegmenter]], board: BoardWatch
) -> None:
    """The lines before the first frame, on stderr; ``others``: networks beside the first, by what they are for."""
    from rtda_deploy.cli.terminal.console import note

    note(f"camera  {camera_text(source)}")
    note(f"engine  {segmenter.description}")
    if segmenter.advice:
        note(f"faster  {segmenter.advice}")
    for what, other in others.items():
        if other is not None:
            note(f"{what:7} {other.description}")
    if board.line():
        note(f"power   {board.line()}")


def camera_text(source: Source) -> str:
    """``csi://0  1280x720 @ 60 (asked 60)``: what the camera gives, and what was asked where that is something else."""
    size = f"{source.size_wh[0]}x{source.size_wh[1]}"
    rate = f"{source.fps:g}" if source.fps else ""
    text = _mode({"size": size, "fps": rate, **source.granted})
    asked = {key: value for key, value in source.asked.items() if value}
    return f"{source.name}  {text}" + (f" (asked {_mode(asked)})" if asked else "")


def _mode(values: Mapping[str, str]) -> str:
    parts = [values.get("size", ""), f"@ {values['fps']}" if values.get("fps") else "", values.get("format", "")]
    return " ".join(part for part in parts if part)


class Screen:
    """The live line on a terminal, a plain line now and then on a pipe, JSON lines where they were asked for.

    Attributes:
        quit: Set when the user asked for the end by a key, here or in the window.
        every_s: Seconds between two lines.
    """

    def __init__(
        self, source: Source, board: BoardWatch, *, json_: bool, every_s: Optional[float], limit: Optional[int]
    ) -> None:
        from rtda_deploy.cli.terminal.console import LiveLine
        from rtda_deploy.cli.terminal.signals import Keys

        total = source.num_frames if limit is None else limit
        self.quit = threading.Event()
        self._board = board
        self._live = source.live  # a recording's frames have no age that says anything
        self._total = f"/{total}" if total else ""
        self._json = json_
        self._line = LiveLine()
        live = self._line.terminal and not json_
        self.every_s = every_s if every_s is not None else _LIVE_EVERY_S if live else _PLAIN_EVERY_S
        self._keys = Keys(live)
        self._pipeline: Optional[Pipeline] = None
        self._overlay: Optional[Overlay] = None
        self._changes: queue.SimpleQueue[Tuple[str, str]] = queue.SimpleQueue()
        self._shifts: queue.SimpleQueue[ShiftState] = queue.SimpleQueue()
        self._recent: Deque[Tuple[float, int]] = collections.deque()
        self._started = self._last = time.monotonic()

    def stats(self) -> Dict[str, Any]:
        """The statistics of the pipeline, once there is one; for sinks, which are opened before it."""
        return self._pipeline.stats if self._pipeline is not None else {}

    def seen(self) -> Dict[str, Any]:
        """What the newest result shows, JSON-ready.

        ``shares`` of the labelled pixels by class, ``unlabelled`` (share of the picture without a class), and
        ``confidence`` (mean) where it was asked.
        """
        from rtda_deploy.errors import StaleFrameError
        from rtda_runtime.mask.groups import count_classes

        if self._pipeline is None:
            return {}
        try:
            result = self._pipeline.latest()
        except StaleFrameError:  # none yet
            return {}
        counts = count_classes(result.mask, result.spec)
        shares = {name: round(share, 4) for name, share in counts.shares.items()}
        told: Dict[str, Any] = {"shares": shares, "unlabelled": round(counts.unlabelled, 4)}
        if result.confidence is not None:
            known = result.confidence[result.mask != result.spec.ignore_index]
            told["confidence"] = round(float(known.mean()) / 255, 4) if known.size else None
        return told

    def snapshots_of(self, overlay: Overlay) -> None:
        """What the key ``s`` draws with."""
        self._overlay = overlay

    def on_state(self, state: str, sentence: str) -> None:
        """Told by the reader's thread; shown at the next tick."""
        self._changes.put((state, sentence))

    def on_shift(self, state: ShiftState) -> None:
        """Told by the alarm's thread; shown at the next tick."""
        self._shifts.put(state)

    def begin(self, pipeline: Pipeline) -> None:
        """Watch this pipeline."""
        from rtda_deploy.cli.terminal.console import note

        if self._keys.active:
            note("keys    q quit   s snapshot")
        self._pipeline = pipeline
        self._started = self._last = time.monotonic()

    def tick(self, *, last: bool = False) -> None:
        """Show what changed, obey keys, and show a line where one is due."""
        self._tell_changes()
        self._obey(self._keys.pressed())
        now = time.monotonic()
        if last or now - self._last < self.every_s:
            return
        self._last = now
        stats = self.stats()
        if self._json:
            from rtda_deploy.cli.terminal.console import print_json

            print_json({"event": "progress", **without_curve(stats), **self.seen()})
        else:
            self._line.show(self._text(stats, now))

    def end(self) -> None:
        """Leave the last line standing."""
        self._line.end()

    def __enter__(self) -> Screen:
        self._keys.__enter__()
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self._keys.__exit__(kind, error, trace)

    def _tell_changes(self) -> None:
        from rtda_deploy.cli.terminal.console import note, print_json

        while not self._changes.empty():
            state, sentence = self._changes.get()
            if self._json:
                losses = self._pipeline.source.losses if self._pipeline is not None else 0
                print_json({"event": "camera", "state": state, "message": sentence, "losses": losses})
            else:
                self._line.clear()
                note(f"camera  {state}: {sentence}")
        while not self._shifts.empty():
            shift = self._shifts.get()
            if self._json:
                print_json({"event": "shift", **without_curve({"shift": shift.to_dict()})["shift"]})
            else:
                self._line.clear()
                note(f"shift   {shift.sentence()}")

    def _obey(self, key: str) -> None:
        if key == "q":
            self.quit.set()
        elif key == "s":
            self._snapshot()

    def _snapshot(self) -> None:
        from rtda_deploy.cli.terminal.console import note, warn
        from rtda_deploy.errors import RtdaError
        from rtda_runtime.sinks.window import save_snapshot

        if self._pipeline is None or self._overlay is None:
            return
        self._line.clear()
        try:
            result = self._pipeline.snapshot()
            note(f"saved   {save_snapshot(self._overlay.draw_result(result), result)}")
        except RtdaError as err:  # no result yet, or a disk that is full: no reason to end
            warn(err.message)

    def _text(self, stats: Dict[str, Any], now: float) -> str:
        from rtda_deploy.cli.terminal.console import clock_text

        stages = stats["stages"]
        parts = [f"{self._rate(stats, now):5.1f} fps"]
        if stats["state"] not in ("live", "ended"):
            parts.append(f"camera {stats['state'].upper()}")
        if "age" in stages and self._live:
            parts.append(f"age {stages['age']['p50']:.1f} ms p95 {stages['age']['p95']:.1f}")
        parts.append(" ".join(f"{short} {stages[stage]['p50']:.1f}" for stage, short in _SHORT if stage in stages))
        parts.append(f"dropped {stats['dropped']}")
        parts += _left_out(stats)
        if "shift" in stats:
            parts.append(_shift_text(stats["shift"]))
        if "shadow" in stats:
            parts.append(_shadow_text(stats["shadow"]))
        parts += [self._board.now(), f"frame {stats['frames']}{self._total}", clock_text(now - self._started)]
        return " │ ".join(part for part in parts if part)

    def _rate(self, stats: Dict[str, Any], now: float) -> float:
        self._recent.append((now, stats["frames"]))
        while len(self._recent) > 2 and now - self._recent[1][0] >= _RATE_WINDOW_S:
            self._recent.popleft()
        (since, before), (_, frames) = self._recent[0], self._recent[-1]
        if now - since < _RATE_WINDOW_S / 2:
            return float(stats["fps"])
        return (frames - before) / (now - since)


def _left_out(stats: Mapping[str, Any]) -> List[str]:
    """What the source threw away, where it did."""
    return [f"{what} {stats[what]}" for what in ("damaged", "outdated") if stats.get(what)]


def without_curve(stats: Mapping[str, Any]) -> Dict[str, Any]:
    """Statistics for a line of JSON: the curve of the shift alarm is for pictures."""
    if "shift" not in stats:
        return dict(stats)
    return {**stats, "shift": {name: value for name, value in stats["shift"].items() if name != "curve"}}


def _shift_text(shift: Mapping[str, Any]) -> str:
    """``familiar 12 %`` of the alarm, or ``UNFAMILIAR features``."""
    if shift["state"] == "unfamiliar":
        return f"UNFAMILIAR {shift['signal']}"
    return f"familiar {100 * shift['evidence']:.0f} %" if shift["blocks"] else "familiar …"


def _shadow_text(shadow: Mapping[str, Any]) -> str:
    """``shadow 93.1 % of 120`` frames; the newest frame's share is in ``--json``."""
    if shadow["error"] is not None:
        return "shadow STOPPED"
    return f"shadow {100 * shadow['agreement']:.1f} % of {shadow['compared']}" if shadow["compared"] else "shadow …"


def print_summary(summary: Dict[str, Any], source: Source, board: BoardWatch, *, json_: bool) -> None:
    """One JSON object; or a table and a sentence on stdout, and the advice on stderr."""
    from rtda_deploy.cli.terminal.console import print_json, print_table, warn
    from rtda_runtime.mask.upsample import mask_maker
    from rtda_runtime.pipeline.advice import advice

    said = advice(
        summary,
        live=source.live,
        fps=source.fps,
        stamp=source.stamp,
        clocks_locked=board.clocks_locked,
        mask_maker=mask_maker(),
    )
    if json_:
        print_json({**without_curve(summary), "advice": said})
        return
    if summary["stages"]:
        print_table(("ms", "p50", "p95", "p99", "max"), _stage_rows(summary["stages"], live=source.live))
    if summary["sinks"]:
        rows = [(name, sink["written"], sink["dropped"], _remark(sink)) for name, sink in summary["sinks"].items()]
        print_table(("sink", "results", "dropped", ""), rows)
    if summary.get("shadow", {}).get("by_class"):
        shares = sorted(summary["shadow"]["by_class"].items(), key=lambda item: item[1])
        print_table(("class", "both, of either %"), [(name, 100 * share) for name, share in shares])
    print("\n".join(summary_lines(summary, live=source.live)))
    for sentence in said:
        warn(sentence)


def _remark(sink: Mapping[str, Any]) -> str:
    from rtda_deploy.cli.run.collecting import collect_text

    return f"stopped: {sink['error']}" if sink["error"] else collect_text(sink)


def summary_lines(stats: Mapping[str, Any], *, live: bool) -> List[str]:
    """The sentence under the table of a run."""
    captured = max(1, int(stats["captured"]))
    parts = [
        f"{stats['frames']} frames in {stats['seconds']:.1f} s = {stats['fps']:.1f} fps",
        f"dropped {stats['dropped']} ({100 * stats['dropped'] / captured:.2f} %)",
        str(stats["policy"]),
    ]
    if stats["too_old"]:
        parts.append(f"too old {stats['too_old']}")
    parts += _left_out(stats)
    if live:
        parts.append(f"camera lost {stats['losses']} times")
    if "shift" in stats:
        parts.append(f"{stats['shift']['state']} at the end, unfamiliar {stats['shift']['alarms']} times")
    if "shadow" in stats:
        parts.append(_shadow_sentence(stats["shadow"]))
    if stats["wrote"]:
        parts.append(f"wrote {', '.join(stats['wrote'])}")
    return [" · ".join(parts)]


def _shadow_sentence(shadow: Mapping[str, Any]) -> str:
    agreed = f"{100 * shadow['agreement']:.1f} % of the pixels alike" if shadow["compared"] else "nothing compared"
    behind = f", {shadow['behind']} of them because the network was behind" if shadow["behind"] else ""
    return f"shadow: {agreed} in {shadow['compared']} frames, {shadow['dropped']} left out{behind}"


def _stage_rows(stages: Dict[str, Dict[str, float]], *, live: bool) -> List[Tuple[Any, ...]]:
    """Rows stage, p50, p95, p99, max.

    Frames of a recording are read ahead, so the time to their mask is mostly waiting and no age: it is called so.
    """
    names = {"age": "age at output" if live else "file to mask"}
    return [
        (names.get(stage, stage), *(round(values[key], 2) for key in ("p50", "p95", "p99", "max")))
        for stage, values in stages.items()
    ]
