"""What each precision costs and gains, agreement, mIoU, size and speed: the tables of docs/results/export.md.

    python benchmarks/export_precision.py last.pth --data toytown:target --size 1024x512
    python benchmarks/export_precision.py last.pth --data camvid:data/camvid --calibrate 64

Calibration and FP16 rescue see frames of the train split only; agreement and mIoU are of the test split. FP16 is
computed with every tensor rounded to float16 (ONNX Runtime alone would compute it in float32). Speed is inference
only, both files in turns in one process, as a ratio to float32 in the same library: median and quartiles.

Below the table stands INT8 end to end: the frames of the test split through ``Segmenter``, fp32 and INT8 in turns, the
masks at the frame's own size against the labels. Fails if INT8 loses more than 0.5 mIoU there (goal) in any library.

A CamVid checkpoint is made by ``RTDA_DATA=DATA rtda-deploy train ablations/toytown-camvid --set steps=400`` (hours on a
laptop; the one scored in docs is its ``Target only``), a ToyTown one by ``rtda-deploy demo``.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import platform
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rounds import middle
from tables import spread, table

from rtda_deploy.files import write_text
from rtda_deploy.optional import available, require
from rtda_deploy.sizes import parse_size
from rtda_export import evaluate, onnx_from_checkpoint, verify
from rtda_export.graph.from_torch import read_onnx, stamped
from rtda_export.parity.report import percent
from rtda_export.parity.scoring import JoinedClasses
from rtda_export.precision.fp16_exceptions import rescue_fp16
from rtda_export.precision.quantize import int8_onnx
from rtda_export.precision.speedup import Speedup
from rtda_runtime import Segmenter, open_engine
from rtda_runtime.engines.contest import race
from rtda_runtime.mask.preprocess import preprocess
from rtda_training.checkpoint import read_checkpoint
from rtda_training.metrics import ConfusionMatrix
from rtda_training.readers import LabelledSet, open_labelled

MIOU_LOSS = 0.5  # percent points that INT8 may lose end to end
_LABELS = {"cpu": "ONNX Runtime", "openvino": "OpenVINO"}


@dataclass(frozen=True)
class Row:
    """One line of the table: a file and what runs it; the limit it is held to; whether it is timed against float32."""

    name: str
    file: Path
    provider: str
    limit: str
    runs_in: str
    timed: bool = False


class Frames(Sequence[np.ndarray]):
    """Preprocessed frames of a set, spread evenly, made when asked for."""

    def __init__(self, data: LabelledSet, count: int, spec: Any) -> None:
        self._data, self._spec = data, spec
        self._chosen = np.linspace(0, len(data) - 1, min(count, len(data))).round().astype(int)

    def __len__(self) -> int:
        return len(self._chosen)

    def __getitem__(self, index: Any) -> Any:
        image = np.zeros((1, 3, *self._spec.size_hw), np.float32)
        preprocess(self._data.frame(int(self._chosen[index])), self._spec, image)
        return image


def make_files(model: Path, out: Path, frames: Frames, spec: Any, threads: int) -> dict[str, Any]:
    """Write the files; gives what rescue and calibration found."""
    plain = onnx_from_checkpoint(model, out / "model.onnx", size_hw=spec.size_hw)
    few = [frames[int(index)] for index in np.linspace(0, len(frames) - 1, 8).round()]
    rescue = rescue_fp16(read_onnx(plain), few, threads=threads, progress=show)
    (out / "model.fp16.onnx").write_bytes(stamped(rescue.model, spec))
    found = {"fp16": rescue.to_dict()}
    for target in ("cpu", "tensorrt"):
        path = out / f"model.int8.{target}.onnx"
        found[f"int8 {target}"] = int8_onnx(
            plain, frames, path, target=target, threads=threads, progress=show
        ).to_dict()
    return found


def rows_of(model: Path, out: Path, trained_size: bool) -> list[Row]:
    """Every file in every library that runs it here; torch only at the size it was trained at."""
    plain, half = out / "model.onnx", out / "model.fp16.onnx"
    cpu, robot = out / "model.int8.cpu.onnx", out / "model.int8.tensorrt.onnx"
    found = [Row("fp32 checkpoint", model, "", "fp32", "torch")] if trained_size else []
    found.append(Row("fp32", plain, "cpu", "fp32", _LABELS["cpu"]))
    found.append(Row("fp16", half, "", "fp16", "ONNX Runtime, rounded to float16"))
    found.append(Row("int8, target cpu", cpu, "cpu", "int8", _LABELS["cpu"], timed=True))
    found.append(Row("int8, target tensorrt", robot, "cpu", "int8", "ONNX Runtime, for agreement only"))
    if available("openvino"):
        found.append(Row("fp32", plain, "openvino", "fp32", _LABELS["openvino"]))
        found.append(Row("fp16", half, "openvino", "fp16", "OpenVINO (computes in float32)"))
        found.append(Row("int8, target cpu", cpu, "openvino", "int8", _LABELS["openvino"], timed=True))
    return found


def measure(row: Row, reference: Path, data: LabelledSet, asked: argparse.Namespace) -> dict[str, Any]:
    """One line: agreement with the reference and mIoU on the test split; the speed where a ratio means something."""
    chosen = np.linspace(0, len(data) - 1, min(asked.frames, len(data))).round().astype(int)
    pictures = [(data.name(int(index)), data.frame(int(index))) for index in chosen]
    parity = None
    if row.file != reference:
        providers = ("", row.provider)
        count = len(pictures)
        options: dict[str, Any] = {"limit": row.limit, "providers": providers, "max_frames": count, "force": True}
        parity = verify(reference, row.file, pictures, **options)
    scored = evaluate(row.file, data, max_pictures=asked.pictures, provider=row.provider)
    entry: dict[str, Any] = {
        "precision": row.name,
        "runs_in": row.runs_in,
        "file": row.file.name,
        "mbytes": row.file.stat().st_size / 1e6,
        "agreement": None if parity is None else parity.agreement,
        "worst_frame": None if parity is None else min(frame.agreement for frame in parity.frames),
        "limit": row.limit,
        "missed": [] if parity is None else parity.missed,
        "miou": scored.to_dict()["miou"],
        "pictures": scored.pictures,
        "speed": None,
    }
    if row.timed:
        timed = speed(row, asked.threads, asked.rounds)
        entry["speed"] = dataclasses.asdict(timed)
        print(timed.sentence(row.name), file=sys.stderr)
    return entry


def speed(row: Row, threads: int, rounds: int) -> Speedup:
    """How many times as fast a row's file is as the float32 file beside it, on the same provider."""
    files = (row.file.parent / "model.onnx", row.file)
    with contextlib.ExitStack() as opened:
        runs = [opened.enter_context(open_engine(file, row.provider, threads=threads)).infer for file in files]
        for run in runs:
            run()
        return Speedup.of(f"{row.runs_in}, {threads} thread(s)", race(*runs, rounds=(rounds, rounds)))


def end_to_end(
    plain: Path, reduced: Path, provider: str, data: LabelledSet, *, pictures: int = 0, threads: int | None = None
) -> dict[str, Any]:
    """What two files of one network are worth to a robot: frames in, masks at the frames' own size out, scored.

    Args:
        plain: The reference, in float32.
        reduced: The same network in INT8.
        provider: Runs both.
        data: Frames and labels; frames and labels of other sizes than each other are refused.
        pictures: Spread evenly over the set; 0: all.
        threads: CPU threads; None: one per core.

    Returns:
        JSON-ready: ``runs_in``, ``pictures``, ``size`` (of the last frame), ``miou_fp32``, ``miou_int8`` and ``lost``
        in percent, ``agreement`` (share of the pixels), ``ms_fp32`` and ``ms_int8`` (median of the whole way),
        ``ratio`` of the two of a frame with its middle half ``low``, ``high``, ``goal`` and ``met``.
    """
    count = min(len(data), pictures or len(data))
    opened = [Segmenter.open(path, provider, threads=threads) for path in (plain, reduced)]
    try:
        classes = JoinedClasses(opened[0].spec, data, plain)
        confusions = [ConfusionMatrix(len(classes.scored.names)) for _ in opened]
        times: list[list[float]] = [[] for _ in opened]
        same, pixels, size = 0, 0, ""
        for number, index in enumerate(np.linspace(0, len(data) - 1, count).round().astype(int)):
            frame, stored = data.pair(int(index))
            masks: list[Any] = [None, None]
            if number == 0:
                for segmenter in opened:
                    segmenter.segment(frame)
            for which in (0, 1) if number % 2 == 0 else (1, 0):
                result = opened[which].segment(frame)
                masks[which] = result.mask if classes.of_mask is None else classes.of_mask[result.mask]
                times[which].append(sum(result.timing.values()))
                confusions[which].add(classes.of_label[stored], masks[which])
            same, pixels = same + int((masks[0] == masks[1]).sum()), pixels + masks[0].size
            size = f"{frame.shape[1]}x{frame.shape[0]}"
    finally:
        for segmenter in opened:
            segmenter.close()
    miou = [100 * confusion.scores(classes.scored.names).miou() for confusion in confusions]
    return {
        "runs_in": _LABELS[provider],
        "pictures": count,
        "size": size,
        "miou_fp32": miou[0],
        "miou_int8": miou[1],
        "lost": miou[0] - miou[1],
        "agreement": same / pixels,
        "ms_fp32": statistics.median(times[0]),
        "ms_int8": statistics.median(times[1]),
        **middle([slow / fast for slow, fast in zip(*times)]),
        "goal": MIOU_LOSS,
        "met": miou[0] - miou[1] <= MIOU_LOSS,
    }


def end_to_end_sentence(row: dict[str, Any]) -> str:
    """One line of the page for :func:`end_to_end`."""
    change = f"{row['miou_fp32']:.2f} to {row['miou_int8']:.2f}, {row['lost']:.2f} lost"
    speed = f"{row['ratio']:.2f}x as fast from frame to mask (middle half {row['low']:.2f} to {row['high']:.2f})"
    return (
        f"INT8 end to end in {row['runs_in']}, {row['pictures']} frames of {row['size']}: mIoU {change}"
        f" (goal: at most {row['goal']:g}; {'met' if row['met'] else 'MISSED'}); {percent(row['agreement'])} of the"
        f" pixels agree; {speed}"
    )


def markdown(result: dict[str, Any]) -> str:
    """The table, and what was kept in which precision."""
    columns = {"precision": "{precision}", "runs in": "{runs_in}", ">agreement": "{agree}", ">worst frame": "{worst}"}
    columns.update({">mIoU, %": "{miou:.2f}", ">MB": "{mbytes:.1f}", ">speed against fp32 there": "{times}"})
    rows = []
    for row in result["rows"]:
        agree, worst = (None if row[key] is None else percent(row[key]) for key in ("agreement", "worst_frame"))
        speed = row["speed"] and {"ratio": row["speed"]["ratio"], "low": row["speed"]["ratio_low"]}
        times = speed and spread({**speed, "high": row["speed"]["ratio_high"]})
        rows.append({**row, "agree": agree, "worst": worst, "times": times})
    lines = [
        f"`{result['data']}`, {result['size']}, {result['pictures']} pictures scored, calibrated on "
        f"{result['calibration_frames']} frames; {result['machine']}; {result['versions']}",
        "",
        table(columns, rows),
        "",
    ]
    for name, facts in result["found"].items():
        kept = (
            facts["keep_fp32"] if name == "fp16" else [n for n in facts["kept_float"] if "alone" in facts["reasons"][n]]
        )
        chosen = "" if name == "fp16" else f", ranges by {facts['calibration']['method']}"
        lines.append(f"- {name}: searched and left in float: {', '.join(kept) or 'none'}{chosen}")
    lines += [f"- {end_to_end_sentence(row)}" for row in result["end_to_end"]]
    return "\n".join(lines) + "\n"


def show(step: str, done: int, total: int) -> None:
    if done == total or done % max(1, total // 10) == 0:
        print(f"  {step} {done}/{total}", file=sys.stderr)


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if os.path.exists("/proc/cpuinfo") else []:
        if line.startswith("model name"):
            return f"{line.split(':')[1].strip()}, {os.cpu_count()} cores"
    return f"{platform.machine()}, {os.cpu_count()} cores"


def versions() -> str:
    import onnxruntime
    import torch

    found = [f"torch {torch.__version__}", f"ONNX Runtime {onnxruntime.__version__}"]
    if available("openvino"):
        found.append(f"OpenVINO {require('openvino', extra='openvino').__version__.split('-')[0]}")
    return ", ".join(found)


def main() -> int:
    """Make the files, measure, write the page and its JSON; 1 if INT8 loses too much end to end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, metavar="CHECKPOINT", help=".pth of rtda-deploy train")
    parser.add_argument("--data", required=True, help="kind:path, without a split: train calibrates, test measures")
    parser.add_argument("--size", default="", help="WxH; as trained when empty")
    parser.add_argument("--calibrate", type=int, default=32, help="frames of the train split to calibrate on")
    parser.add_argument("--frames", type=int, default=32, help="frames of the test split to compare masks on")
    parser.add_argument("--pictures", type=int, default=0, help="pictures of the test split to score; 0: all")
    parser.add_argument("--rounds", type=int, default=15, help="timed pairs")
    parser.add_argument("--threads", type=int, default=1, help="of the library, timing included")
    parser.add_argument("--out", type=Path, default=Path("runs/export-precision"))
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    spec = read_checkpoint(asked.model).spec
    trained_hw = spec.size_hw
    if asked.size:
        spec = spec.replace(size_hw=parse_size(asked.size))
    frames = Frames(open_labelled(asked.data, split="train"), asked.calibrate, spec)
    found = make_files(asked.model, asked.out, frames, spec, asked.threads)
    test = open_labelled(asked.data, split="test")
    rows = rows_of(asked.model, asked.out, spec.size_hw == trained_hw)
    measured = [measure(row, rows[0].file, test, asked) for row in rows]
    files = asked.out / "model.onnx", asked.out / "model.int8.cpu.onnx"
    whole = [
        end_to_end(*files, provider, test, pictures=asked.pictures, threads=asked.threads)
        for provider in ("cpu", *(["openvino"] if available("openvino") else []))
    ]
    result = {
        "model": asked.model.name,
        "data": asked.data,
        "size": f"{spec.size_hw[1]}x{spec.size_hw[0]}",
        "pictures": measured[0]["pictures"],
        "calibration_frames": len(frames),
        "machine": processor(),
        "versions": versions(),
        "threads": asked.threads,
        "rows": measured,
        "end_to_end": whole,
        "found": found,
    }
    write_text(asked.out / "export_precision.json", json.dumps(result, indent=2) + "\n")
    table = markdown(result)
    write_text(asked.out / "export_precision.md", table)
    print(table)
    return int(not all(row["met"] for row in whole))


if __name__ == "__main__":
    sys.exit(main())
