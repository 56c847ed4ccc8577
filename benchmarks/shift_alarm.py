"""Does the shift alarm keep its promise on days like its calibration, and how soon does it tell of another world?

    python benchmarks/shift_alarm.py best.pth --camvid CAMVID [--world NAME=FOLDER ...] [--hours 40] [--out shift]

The network is exported with ``--monitor``; it should not have learned from CamVid's day, on whose pictures it would be
surer than on others of the day. CamVid's day drives (0016E5, 0006R0, Seq05VD, a frame a second) are cut in
half: the first half calibrates. False alarms are counted on the rest of 0006R0 and on Seq05VD, block-resampled to
``--hours`` each (runs of ten blocks, drawn with replacement: long drives are not in CamVid), with the exact interval of
a Poisson count. Detection is the time from the change until the alarm, of CamVid's dusk (0001TP), of the folders of
``--world``, of noise, blur, a covered and a fogged lens at five strengths, of slow dusk; a static scene of an hour must
raise none.

Beside it two usual ways, on the same blocks: ``confidence``: a block's mean confidence is below that of every block of
the calibration; ``KS``: a Kolmogorov-Smirnov test of the newest 20 frames' confidences at every frame, p < 0.01.
Writes ``OUT.md`` and ``OUT.png``. ``--tiny`` takes few frames, to see that it runs.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Tuple

import cv2
import numpy as np
from shift_worlds import SPOILERS, STRENGTHS, resampled, slow_dusk
from tables import table

from rtda_deploy.familiar import Familiar
from rtda_export import onnx_from_checkpoint
from rtda_runtime import Segmenter
from rtda_runtime.shift.alarm import ShiftAlarm, longest_shift_s
from rtda_runtime.shift.support import duration_s, duration_text
from rtda_training.judge.blocks import familiar_of

_BLOCK = 3  # frames, a second apart
_RUN = 10  # blocks of a resampled drive that follow each other as filmed
_BEFORE = 20  # blocks of day before a change
_LONGEST = 200  # blocks of another world; those that are shorter come again
_KS_FRAMES, _KS_P = 20, 0.01

Detector = Callable[[np.ndarray], np.ndarray]  # frames' signals (N, D) -> bool by block (N // 3,)


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory() as folder:
        path = onnx_from_checkpoint(options.checkpoint, Path(folder) / "monitored.onnx", monitor=True)
        with Segmenter.open(path, "cpu", threads=options.threads) as segmenter:
            found = _measured(segmenter, options)
    page = _page(found)
    Path(f"{options.out}.md").write_text(page, encoding="utf-8")
    _picture(found, Path(f"{options.out}.png"))
    print(json.dumps(found) if options.json else page)


def _options() -> Any:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint")
    parser.add_argument("--camvid", type=Path, required=True)
    parser.add_argument("--world", action="append", default=[], help="NAME=FOLDER of pictures; may be repeated")
    parser.add_argument("--hours", type=float, default=40.0)
    parser.add_argument("--apart", default="10m", help="time between false alarms")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", default="shift")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def _measured(segmenter: Segmenter, options: Any) -> Dict[str, Any]:
    def signals(frames: List[np.ndarray]) -> np.ndarray:
        rows = [segmenter.segment(frame).monitor for frame in frames]
        return np.stack([row for row in rows if row is not None])

    camvid = {name: _drive(options.camvid, name) for name in ("0016E5", "0006R0", "Seq05VD", "0001TP")}
    step = 3 if options.tiny else 1
    half = sum(len(camvid[name]) for name in ("0016E5", "0006R0", "Seq05VD")) // 2 - len(camvid["0016E5"])
    drives = [signals(camvid["0016E5"]), signals(camvid["0006R0"][:half])]
    first, rest = np.concatenate(drives), camvid["0006R0"][half:]
    widths = tuple(segmenter.spec.provenance["export"]["monitor"].values())
    familiar = familiar_of(drives, widths, data="first half of CamVid's day drives", robot=True)
    assert familiar is not None
    longest = longest_shift_s(familiar)
    if longest < 60:
        raise SystemExit(f"the first half supports {duration_text(longest)} between false alarms: nothing to measure")
    apart_s = min(duration_s(options.apart, "--apart"), longest)
    ways = _ways(familiar, first, apart_s)
    known = {"rest of the day": signals(rest), "Seq05VD": signals(camvid["Seq05VD"][::step])}
    random = np.random.default_rng(0)
    hours = 0.5 if options.tiny else options.hours
    false = [row for name, values in known.items() for row in _false_alarms(name, values, ways, hours, random)]
    before = known["rest of the day"][-_BEFORE * _BLOCK :]
    worlds = {"dusk (0001TP)": signals(camvid["0001TP"][::step])}
    for text in options.world:
        name, _, folder = text.partition("=")
        worlds[name] = signals(_pictures(sorted(Path(folder).iterdir())[:: step * 4][:150]))
    worlds["slow dusk, 4 min"] = signals(slow_dusk(rest, 40 if options.tiny else 240))
    detected = [_detected(name, before, values, ways) for name, values in worlds.items()]
    spoiled = []
    for name, spoil in SPOILERS.items():
        for strength in range(STRENGTHS):
            frames = [spoil(frame, strength, random) for frame in rest[: 30 if options.tiny else 150]]
            spoiled.append({**_detected(name, before, signals(frames), ways), "strength": strength + 1})
    still = _static(rest[len(rest) // 2], signals, ways, 120 if options.tiny else 3600, random)
    facts = {"blocks": familiar.blocks, "apart_s": apart_s, "longest_s": longest, "hours": hours, "tiny": options.tiny}
    return {**facts, "false": false, "worlds": detected, "spoiled": spoiled, "static": still}


def _ways(familiar: Familiar, calibration: np.ndarray, apart_s: float) -> Dict[str, Detector]:
    def alarm(frames: np.ndarray) -> np.ndarray:
        one = ShiftAlarm(familiar, apart_s)
        return np.array([one.add_block(block).unfamiliar for block in _blocks(frames)])

    least = float(_blocks(calibration)[:, -1].min())

    def confidence(frames: np.ndarray) -> np.ndarray:
        return np.asarray(_blocks(frames)[:, -1] < least)

    sure = np.sort(calibration[:, -1])

    def ks(frames: np.ndarray) -> np.ndarray:
        newest = frames[:, -1]
        told = [
            place >= _KS_FRAMES and _ks_p(np.sort(newest[place - _KS_FRAMES : place]), sure) < _KS_P
            for place in range(1, len(newest) + 1)
        ]
        return np.array(told[: len(told) // _BLOCK * _BLOCK]).reshape(-1, _BLOCK).any(axis=1)

    return {"alarm": alarm, "confidence": confidence, "KS": ks}


def _blocks(frames: np.ndarray) -> np.ndarray:
    return np.asarray(frames[: len(frames) // _BLOCK * _BLOCK].reshape(-1, _BLOCK, frames.shape[1]).mean(axis=1))


def _ks_p(one: np.ndarray, other: np.ndarray) -> float:
    """p-value of the two-sample Kolmogorov-Smirnov test, asymptotic (Numerical Recipes, 14.3)."""
    both = np.concatenate([one, other])
    shares = [np.searchsorted(values, both, side="right") / len(values) for values in (one, other)]
    root = math.sqrt(len(one) * len(other) / (len(one) + len(other)))
    x = (root + 0.12 + 0.11 / root) * float(np.abs(shares[0] - shares[1]).max())
    return min(1.0, max(0.0, 2.0 * sum((-1) ** (k - 1) * math.exp(-2.0 * (k * x) ** 2) for k in range(1, 50))))


def _false_alarms(
    name: str, frames: np.ndarray, ways: Dict[str, Detector], hours: float, random: np.random.Generator
) -> List[Dict[str, Any]]:
    count = int(hours * 3600 / _BLOCK)
    runs = frames[: len(frames) // _BLOCK * _BLOCK].reshape(-1, _BLOCK, frames.shape[1])
    drawn = resampled(runs, count, _RUN, random).reshape(-1, frames.shape[1])
    rows = []
    for way, detector in ways.items():
        told = detector(drawn)
        alarms = int((told[1:] & ~told[:-1]).sum() + told[0])
        low, high = _poisson_interval(alarms)
        share = float(told.mean())
        rows.append({"drive": name, "way": way, "alarms": alarms, "low": low, "high": high, "share": share})
    return rows


def _poisson_interval(count: int) -> Tuple[float, float]:
    """The exact 95 % interval of a Poisson count's mean (Garwood, Biometrika 28, 1936), by bisection."""

    def at_most(mean: float, most: int) -> float:
        terms = (k * math.log(mean) - mean - math.lgamma(k + 1) for k in range(most + 1))
        return sum(math.exp(term) for term in terms)

    def solved(rises: Callable[[float], bool]) -> float:
        low, high = 1e-9, 10.0 * count + 50.0
        for _ in range(60):
            middle = (low + high) / 2.0
            low, high = (middle, high) if rises(middle) else (low, middle)
        return high

    lower = 0.0 if not count else solved(lambda mean: 1.0 - at_most(mean, count - 1) < 0.025)
    return lower, solved(lambda mean: at_most(mean, count) > 0.025)


def _detected(name: str, before: np.ndarray, after: np.ndarray, ways: Dict[str, Detector]) -> Dict[str, Any]:
    """Seconds from the change to the alarm, by way; None where there was none."""
    times = -(-_LONGEST * _BLOCK // len(after)) if name != "slow dusk, 4 min" else 1
    changed = np.concatenate([after] * times)[: _LONGEST * _BLOCK]
    delays: Dict[str, Optional[float]] = {}
    for way, detector in ways.items():
        told = detector(np.concatenate([before, changed]))[len(before) // _BLOCK :]
        delays[way] = float((int(told.argmax()) + 1) * _BLOCK) if told.any() else None
    return {"world": name, "frames": len(after), **delays}


def _static(
    frame: np.ndarray,
    signals: Callable[[List[np.ndarray]], np.ndarray],
    ways: Dict[str, Detector],
    seconds: int,
    random: np.random.Generator,
) -> Dict[str, Any]:
    """Alarms of a camera that looks at one scene: its sensor's noise, and nothing else, changes."""
    noisy = [np.clip(frame + random.normal(0, 2.0, frame.shape), 0, 255).astype(np.uint8) for _ in range(30)]
    values = signals(noisy)[random.integers(0, 30, seconds)]
    told = {way: detector(values) for way, detector in ways.items()}
    return {"seconds": seconds, **{way: int((one[1:] & ~one[:-1]).sum() + one[0]) for way, one in told.items()}}


def _drive(camvid: Path, name: str) -> List[np.ndarray]:
    """A drive of CamVid, a frame a second; frames of 0016E5 that are closer than that (its val part) are left out."""
    found = sorted(path for part in ("train", "test") for path in (camvid / part).glob(f"{name}_*"))
    if not found:
        raise SystemExit(f"{camvid} holds no frame of {name}: give SegNet's CamVid, with train/ and test/")
    return _pictures(found)


def _pictures(paths: List[Path]) -> List[np.ndarray]:
    read = [cv2.imread(str(path)) for path in paths]
    return [frame for frame in read if frame is not None]


def _page(found: Dict[str, Any]) -> str:
    delays = {"alarm": "{alarm}", "confidence": "{confidence}", "KS": "{KS}"}
    heads = {f">{way}, {_in_alarm(found, way)} of the day": form for way, form in delays.items()}
    columns = {"drive": "{drive}", "way": "{way}", ">alarms": "{alarms}", ">95 %": "{low:.1f} to {high:.1f}"}
    promised = found["hours"] * 3600 / found["apart_s"]
    still = ", ".join(f"{way} {found['static'][way]}" for way in delays)
    return "\n".join(
        [
            "# Shift alarm" + (" (tiny: no figure here means anything)" if found["tiny"] else ""),
            "",
            f"Calibrated on {found['blocks']} blocks of {_BLOCK} s, which support "
            f"{duration_text(found['longest_s'])}; asked for {duration_text(found['apart_s'])}: at most "
            f"{promised:.1f} false alarms are promised in {found['hours']:g} h of block-resampled driving.",
            "",
            table({**columns, ">in alarm": "{share:%1}"}, found["false"]),
            "",
            "Seconds from the change to the alarm, – for none; beside each way the share of the known day that it is "
            "in alarm: one that is so most of the time is soon right.",
            "",
            table({"world": "{world}", **heads}, found["worlds"]),
            "",
            table(
                {"world": "{world}", ">strength": "{strength}", **heads},
                found["spoiled"],
            ),
            "",
            f"Alarms of a static scene in {found['static']['seconds']} s: {still}.",
            "",
        ]
    )


def _in_alarm(found: Dict[str, Any], way: str) -> str:
    """Share of the known drives' time, as text."""
    shares = [row["share"] for row in found["false"] if row["way"] == way]
    return f"{100 * sum(shares) / len(shares):.0f} %"


def _picture(found: Dict[str, Any], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(SPOILERS), figsize=(13, 3.2), sharey=True)
    for axis, name in zip(axes, SPOILERS):
        rows = [row for row in found["spoiled"] if row["world"] == name]
        for way, mark in (("alarm", "o-"), ("confidence", "s--"), ("KS", "^:")):
            points = [(row["strength"], row[way]) for row in rows if row[way] is not None]
            label = f"{way} ({_in_alarm(found, way)} of the known day)"
            axis.plot([x for x, _ in points], [y for _, y in points], mark, label=label)
        axis.set(title=name, xlabel="strength", xticks=range(1, STRENGTHS + 1), xlim=(0.7, 5.3))
    axes[0].set(ylabel="seconds to the alarm", yscale="log")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="lower center", ncols=3, frameon=False)
    figure.tight_layout(rect=(0, 0.09, 1, 1))
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
