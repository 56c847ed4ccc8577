"""Causes that the statistics of a pipeline show, with the fix for each."""

from __future__ import annotations

from typing import Any, Dict, Iterator, List, Mapping, Optional

from rtda_runtime.mask.upsample import slow_mask

__all__ = ["advice"]

_LEAST_FRAMES = 20  # below, a median says little
_WORK = ("preprocess", "infer", "postprocess", "compare")
_NOTABLE_MS = 5.0
_WAITING = 0.5  # of the work: a frame that waits longer than this before it is worked on
_LIMITED = 0.9  # of the camera's rate: reached means that the camera is the limit
_BUSY = 0.8  # of the time between two frames: above, the next one waits
_DROPPED = 0.05  # of what was captured, or of what a sink was given
_NETWORK_STAMP = "arrival"
_DRIVER_STAMPS = ("driver", "pipeline")  # stamps that are taken before a frame waits in a queue


def advice(
    stats: Mapping[str, Any],
    *,
    live: bool,
    fps: Optional[float] = None,
    stamp: str = "read",
    clocks_locked: Optional[bool] = None,
    mask_maker: Optional[str] = None,
) -> List[str]:
    """Sentences for the statistics of a pipeline; none where nothing stands out.

    Args:
        stats: As :attr:`Pipeline.stats`.
        live: The source is a camera.
        fps: The rate it says it has.
        stamp: Which moment ``captured_ns`` tells, as :attr:`Source.stamp`.
        clocks_locked: Of a Jetson; None: not known, or none.
        mask_maker: As :func:`rtda_runtime.mask.upsample.mask_maker`.
    """
    sentences = [*_sinks(stats, live=live), *_shadow(stats)]
    if stats["frames"] >= _LEAST_FRAMES:
        stages = stats["stages"]
        median = {stage: float(values["p50"]) for stage, values in stages.items()}
        work = sum(median.get(stage, 0.0) for stage in _WORK)
        if live and stats["policy"] == "newest":
            sentences += list(_waiting(stats, median, work, stamp)) or list(_camera(stats, median, work, fps))
        slow = slow_mask(mask_maker, median.get("postprocess", 0.0), work)
        sentences += [slow] if slow else list(_stages(median, live, stamp))
        if clocks_locked is False:
            sentences.append(_clocks(stages))
    return sentences


def _waiting(stats: Mapping[str, Any], median: Dict[str, float], work: float, stamp: str) -> Iterator[str]:
    waits = median["age"] - work
    if waits < max(_NOTABLE_MS, _WAITING * work):
        return
    said = f"the work is {work:.1f} ms but a frame is {median['age']:.1f} ms old"
    if work > _BUSY * _period_ms(stats):
        yield f"{said}: it waits for the one before, because frames come faster than the network takes them"
    elif stamp in _DRIVER_STAMPS:
        yield f"{said}: frames wait in the camera's driver; a lower exposure time or fewer buffers there help"
    else:
        yield f"{said}: the CPU is short of cores, or sinks take them; --threads leaves the network fewer"


def _camera(stats: Mapping[str, Any], median: Dict[str, float], work: float, fps: Optional[float]) -> Iterator[str]:
    period = _period_ms(stats)
    if stats["dropped"] > _DROPPED * stats["captured"]:
        said = f"{100 * stats['dropped'] / stats['captured']:.0f} % of the frames were dropped: "
        if work > _BUSY * period:
            yield f"{said}the work takes {work:.1f} ms a frame, and the camera gives one every {period:.1f} ms"
        else:
            yield f"{said}the work takes only {work:.1f} of {period:.1f} ms, so something else keeps the CPU from it"
    elif fps and median.get("capture", 0.0) > work and stats["fps"] >= _LIMITED * fps:
        yield f"the camera is the limit: {stats['fps']:.1f} of its {fps:g} fps, the work takes {work:.1f} ms a frame"
    elif fps and median.get("capture", 0.0) > work:
        yield (
            f"the camera gives {stats['fps']:.1f} fps though it says {fps:g}: in the dark cameras expose longer;"
            " over USB --fourcc MJPG often raises the rate"
        )


def _period_ms(stats: Mapping[str, Any]) -> float:
    """Between two frames, as they came."""
    return float(1000 * stats["seconds"] / max(1, stats["captured"]))


def _stages(median: Dict[str, float], live: bool, stamp: str) -> Iterator[str]:
    """Of a camera only: its picture can be smaller, a recording's cannot; a network camera is not asked for it."""
    if not live:
        return
    pre, infer, post = (median.get(stage, 0.0) for stage in ("preprocess", "infer", "postprocess"))
    how = "set it in the camera" if stamp == _NETWORK_STAMP else "--size"
    for stage, spent in (("preprocess", pre), ("postprocess", post)):
        if spent > max(_NOTABLE_MS, infer):
            yield f"{stage} takes {spent:.1f} ms, the network {infer:.1f}: a smaller camera picture helps ({how})"


def _sinks(stats: Mapping[str, Any], *, live: bool) -> Iterator[str]:
    for name, sink in stats["sinks"].items():
        given = sink["written"] + sink["dropped"]
        if name not in ("view", "window", "collect", "shadow") and given and sink["dropped"] > _DROPPED * given:
            spent = sum(values["p50"] for values in sink["stages"].values())
            yield (
                f"{name} kept {sink['written']} of {given} results: it takes {spent:.1f} ms each"
                + (f", and they come every {1000 / stats['fps']:.1f} ms" if stats["fps"] else "")
                + ("; a smaller picture or rate helps (--size, --fps)" if live else "")
            )


def _shadow(stats: Mapping[str, Any]) -> Iterator[str]:
    shadow = stats.get("shadow")
    if shadow and shadow["behind"] > shadow["compared"]:
        yield (
            f"the shadow looked at {shadow['compared']} frames only, because the network was behind: ask the camera for"
            " fewer (--fps)"
        )


def _clocks(stages: Mapping[str, Mapping[str, float]]) -> str:
    infer = stages["infer"]
    return f"clocks not locked: sudo jetson_clocks; infer p50 {infer['p50']:.1f} ms, p99 {infer['p99']:.1f} ms"
