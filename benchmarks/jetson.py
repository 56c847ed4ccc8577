"""Speed, power and heat of BiSeNet on a Jetson: ``rtda-deploy bench`` for each network, size, precision and power mode.

    python3 benchmarks/jetson.py prepare --out models                 on a desktop with torch: the .onnx files
    python3 benchmarks/jetson.py --onnx-dir models --out runs/jetson  on the board; goes on where it was stopped

In the power mode that is found; with sudo also in others (--power-modes all), or with clocks locked (--lock-clocks):
both are put back at the end, after Ctrl-C, a SIGTERM and failures. --sustained 20 runs the first row for 20 minutes and
shows whether heat slows it down. Ends with OUT/jetson.json and OUT/jetson.md; each row's page of ``bench`` is below
OUT/bench. Without a Jetson and TensorRT: --provider cpu measures the same without power figures.

Exit codes: 0 done, 1 a row failed, 2 wrong usage, 3 something is not there, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence

from tables import table

from rtda_deploy.errors import ConfigError, DeviceError, FileAccessError, RtdaError
from rtda_deploy.files import sha256_file, writable_folder, write_text
from rtda_deploy.optional import require
from rtda_deploy.sizes import parse_size
from rtda_runtime.machine.jetson import Board, PowerMode, read_board, set_power_mode

FORMAT = "rtda.jetson/2"
BACKBONES = {"r18": "resnet18", "r101": "resnet101"}  # of BiSeNet in RTDA's lineage
SIZES = "512x256,1024x512,2048x1024"
PRECISIONS = ("fp16", "int8", "fp32")  # fp16 first: it is what a robot runs
_CLOCKS_TIMEOUT_S = 30.0
_COLUMNS = {
    "power mode": "{mode}",
    "model": "{model}",
    "precision": "{precision}",
    ">network ms p50 / p95 / p99": "{infer}",
    ">end to end ms p50 / p95 / p99": "{total}",
    ">frames/s": "{fps:.1f}",
    ">GPU MHz": "{gpu_mhz:.0f}",
    ">max C": "{temperature_max_c:.0f}",
    ">W": "{power_w:.1f}",
    ">mJ/frame": "{energy:.0f}",
}


class Row(NamedTuple):
    """What is measured once: a power mode (None: as found), an ``.onnx``, a precision, and for how long."""

    mode: Optional[PowerMode]
    onnx: Path
    precision: str
    seconds: float

    @property
    def key(self) -> str:
        """``MODE_30W_ALL-bisenet-r18-1024x512-fp16-10s``, as files are named."""
        stem = self.onnx.name.split(".")[0]
        return f"{self.mode.name if self.mode else 'as-found'}-{stem}-{self.precision}-{self.seconds:g}s"


def main(arguments: Optional[Sequence[str]] = None, root: Path = Path("/")) -> int:
    """Run the command line; its exit code. ``root``: where ``/etc``, ``/proc`` and ``/sys`` begin."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if words[:1] == ["prepare"]:
            return _prepare(_parser("prepare").parse_args(words[1:]))
        with _sigterm_as_interrupt():
            return _measure(_parser("").parse_args(words), root)
    except RtdaError as err:
        for name, text in (("error", err.message), ("why", err.why), ("fix", err.hint)):
            if text:
                say(f"{name:<6} {text}")
        return err.exit_code
    except KeyboardInterrupt:
        say("stopped; finished rows are kept; the same command goes on from here")
        return 130


def say(text: str) -> None:
    """A line for people, on stderr."""
    print(text, file=sys.stderr, flush=True)


def _parser(command: str) -> argparse.ArgumentParser:
    shape = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=shape, allow_abbrev=False)
    parser.add_argument("--networks", type=_known(BACKBONES), default="r18,r101", help="with commas (%(default)s)")
    parser.add_argument("--sizes", type=lambda text: text.split(","), default=SIZES, help="WxH,WxH (%(default)s)")
    parser.add_argument("--precisions", type=_known(PRECISIONS), default=",".join(PRECISIONS), help="(%(default)s)")
    if command == "prepare":
        parser.add_argument("--out", type=Path, default=Path("models"), help="folder of the files (%(default)s)")
        text = "a trained checkpoint instead of random weights; may be given for each network"
        parser.add_argument("--checkpoint", action="append", default=[], metavar="r18=FILE.pth", help=text)
        return parser
    parser.add_argument("--onnx-dir", type=Path, required=True, help="what prepare wrote")
    parser.add_argument("--out", type=Path, default=Path("runs/jetson"), help="folder of the results (%(default)s)")
    parser.add_argument("--provider", choices=("tensorrt", "cpu"), default="tensorrt")
    parser.add_argument("--power-modes", metavar="all|N,N", help="set these in turn, with sudo (default: as found)")
    parser.add_argument("--lock-clocks", action="store_true", help="run jetson_clocks first, with sudo")
    parser.add_argument("--sustained", type=float, default=0.0, metavar="MINUTES", help="run the first row so long too")
    parser.add_argument("--frame-size", default="1280x720", metavar="WxH", help="of the camera (%(default)s)")
    parser.add_argument("--seconds", type=float, default=10.0, help="measured for each row (%(default)s)")
    parser.add_argument("--warmup", type=float, default=3.0, help="seconds not measured (%(default)s)")
    return parser


def _known(known: Any) -> Callable[[str], List[str]]:
    def words(text: str) -> List[str]:
        chosen = text.split(",")
        if set(chosen) - set(known):
            raise argparse.ArgumentTypeError(f"unknown in {text!r}; known: {', '.join(known)}")
        return [name for name in known if name in chosen]

    return words


# --- prepare -------------------------------------------------------------------------------------------------------


def _prepare(options: argparse.Namespace) -> int:
    """Write the ``.onnx`` files; the weights are random where no checkpoint is given, which no speed depends on but
    that of making the mask. INT8 is calibrated on invented pictures: as fast as others, and right for nothing.
    """
    from small_network import write_network

    from rtda_export import onnx_from_checkpoint

    writable_folder(options.out)
    checkpoints = dict(text.split("=", 1) for text in options.checkpoint)
    for network, size in itertools.product(options.networks, options.sizes):
        path = options.out / f"bisenet-{network}-{size}.onnx"
        height, width = parse_size(size)
        if path.exists():
            continue
        say(f"writing {path}")
        if network in checkpoints:
            onnx_from_checkpoint(checkpoints[network], path, size_hw=(height, width))
        else:
            write_network(path, (width, height), backbone=BACKBONES[network])
        if "int8" in options.precisions:
            _write_int8(path, path.with_suffix(".int8.onnx"))
    say(f"next    scp -r {options.out} benchmarks dist/*.whl BOARD:")
    say(f"        and there: python3 benchmarks/jetson.py --onnx-dir {options.out.name} --out runs/jetson")
    return 0


def _write_int8(source: Path, target: Path) -> None:
    import numpy as np

    from rtda_deploy.onnx_file import onnx_spec
    from rtda_export.precision.quantize import int8_onnx
    from rtda_runtime.bench.samplers import smooth_pictures
    from rtda_runtime.mask.preprocess import preprocess

    spec = onnx_spec(source)
    images = [np.empty((1, 3, *spec.size_hw), np.float32) for _ in range(4)]
    for picture, image in zip(smooth_pictures((640, 360), len(images)), images):
        preprocess(picture, spec, image)
    int8_onnx(source, images, target, method="minmax", check=images[:1], limit=1e-9, max_float=0.0)


# --- measure -------------------------------------------------------------------------------------------------------


def _measure(options: argparse.Namespace, root: Path) -> int:
    """Measure what is not measured yet, and write the report after each row."""
    board = read_board(root)
    if options.provider == "tensorrt":
        require("tensorrt", extra="tensorrt-cu12", purpose="to build and run engines; or --provider cpu")
    modes = _modes(options, board)
    rows = [row for mode in modes for row in _rows(options, mode)]
    out = writable_folder(options.out)
    found: Dict[str, Any] = {"format": FORMAT, "board": board.to_dict(), "rows": {}, "notes": list(board.missing)}
    say(f"board   {_title(found)}; {len(rows)} rows, in {out}")
    failed = 0
    with _put_back(board, options, out / "clocks-found.conf"):
        for mode in modes:
            mine = [row for row in rows if row.mode == mode]
            kept = {row: _kept(out, row, _facts(options, row, board)) for row in mine}
            try:
                if None in kept.values():
                    _use(mode, options, root)
            except RtdaError as err:  # where all are asked for, some may want a restart of the board
                _note(found, f"not measured in {mode.name if mode else 'this mode'}: {err.message}; {err.hint}")
                failed += int(options.power_modes != "all")
                continue
            for row, bench in kept.items():
                say(f"        {row.key}" + (": measured before" if bench else ""))
                try:
                    found["rows"][row.key] = bench or _bench(options, row, out, _facts(options, row, board))
                except RtdaError as err:
                    _note(found, f"{row.key} failed: {err.message}" + (f" ({err.why})" if err.why else ""))
                    failed += 1
                write_text(out / "jetson.json", json.dumps(found, indent=2) + "\n")
                write_text(out / "jetson.md", page(found, rows))
    print(page(found, rows))
    return int(failed > 0)


def _note(found: Dict[str, Any], text: str) -> None:
    say(f"! {text}")
    found["notes"].append(text)


def _rows(options: argparse.Namespace, mode: Optional[PowerMode]) -> Iterator[Row]:
    """Small and fast ones first, so that an interrupted run has something to show; the long one last."""
    rows = [
        Row(mode, _source(options, f"bisenet-{network}-{size}", precision), precision, options.seconds)
        for network, size, precision in itertools.product(options.networks, options.sizes, options.precisions)
    ]
    yield from rows
    if options.sustained:
        yield rows[0]._replace(seconds=60.0 * options.sustained)


def _source(options: argparse.Namespace, stem: str, precision: str) -> Path:
    """The ``.onnx`` that a row is made from: INT8 has its scales in a file of its own; so has FP16 without TensorRT."""
    own = precision == "int8" or (precision == "fp16" and options.provider != "tensorrt")
    path: Path = options.onnx_dir / (f"{stem}.{precision}.onnx" if own else f"{stem}.onnx")
    if not path.is_file():
        hint = (
            f"on the desktop: python3 benchmarks/jetson.py prepare --out {options.onnx_dir}; then copy the folder here"
        )
        raise FileAccessError(f"{path} is not there", hint=hint)
    return path


def _facts(options: argparse.Namespace, row: Row, board: Board) -> Dict[str, Any]:
    """What a row depends on; one that was measured with the same is not measured again."""
    settings = {name: getattr(options, name) for name in ("provider", "frame_size", "warmup", "lock_clocks")}
    return {**settings, "sha256": sha256_file(row.onnx), "model": board.model, "l4t": board.l4t}


def _kept(out: Path, row: Row, facts: Dict[str, Any]) -> Optional[Dict[str, Any]]:
    """The record of a finished row with these facts; else None."""
    try:
        kept = json.loads((out / "rows" / f"{row.key}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return kept["bench"] if kept["facts"] == facts else None


def _bench(options: argparse.Namespace, row: Row, out: Path, facts: Dict[str, Any]) -> Dict[str, Any]:
    """The record of ``rtda-deploy bench --json``; the engine is built before, where there is none yet.

    Raises:
        RtdaError: If the engine cannot be built, or the bench fails.
    """
    model = row.onnx
    if options.provider == "tensorrt":
        from rtda_export.tensorrt import engine_from_onnx

        model = out / "engines" / f"{row.onnx.name.split('.')[0]}.{row.precision}.engine"
        say(f"        building {model.name} (minutes the first time)")
        engine_from_onnx(row.onnx, model, precision=row.precision)
    command = [sys.executable, "-m", "rtda_deploy", "bench", str(model), "--provider", options.provider, "--json"]
    command += ["--duration", str(row.seconds), "--warmup", str(options.warmup), "--frame-size", options.frame_size]
    command += ["--out", str(out / "bench" / row.key), "--force"]
    streams: Dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    # In a session of its own a Ctrl-C reaches it through us alone, once, and it ends tegrastats before it goes.
    process = subprocess.Popen(command, universal_newlines=True, start_new_session=True, **streams)
    try:
        answer, words = process.communicate()
    except KeyboardInterrupt:
        process.send_signal(signal.SIGINT)
        process.communicate()
        raise
    if process.returncode != 0:
        told = [line for line in words.splitlines() if line.strip()] or [f"it ended with {process.returncode}"]
        raise DeviceError("bench failed", why=next((line for line in told if line.startswith("error")), told[-1]))
    record: Dict[str, Any] = json.loads(answer)
    write_text(out / "rows" / f"{row.key}.json", json.dumps({"facts": facts, "bench": record}) + "\n")
    return record


# --- power modes and clocks ----------------------------------------------------------------------------------------


def _modes(options: argparse.Namespace, board: Board) -> List[Optional[PowerMode]]:
    """The modes to measure in: the one found, ``all``, or numbers with commas between them."""
    for option, asked in (("--power-modes", options.power_modes), ("--lock-clocks", options.lock_clocks)):
        if asked and not board.is_jetson:
            raise ConfigError(f"{option} is for a Jetson; this is none", hint="leave it out")
        if asked and os.geteuid() != 0:
            raise ConfigError(f"{option} needs root", hint="sudo -E env PATH=$PATH python3 ...")
    if not options.power_modes:
        return [board.power_mode]
    known = {str(mode.number): mode for mode in board.power_modes}
    chosen = list(known) if options.power_modes == "all" else options.power_modes.split(",")
    if set(chosen) - set(known):
        names = ", ".join(f"{mode.number} {mode.name}" for mode in board.power_modes)
        raise ConfigError(f"unknown power mode in {options.power_modes!r}", hint=f"this board has: {names}")
    return [known[word] for word in chosen]


def _use(mode: Optional[PowerMode], options: argparse.Namespace, root: Path) -> None:
    """Switch to a mode, where it is not in force already, and lock the clocks if that was asked for."""
    if mode is not None and mode.number is not None and mode != read_board(root).power_mode:
        set_power_mode(mode.number)
        say(f"mode    {mode.name} ({mode.number}) set")
    if options.lock_clocks:
        _jetson_clocks()


@contextlib.contextmanager
def _put_back(board: Board, options: argparse.Namespace, clocks: Path) -> Iterator[None]:
    """Afterwards the mode and the clocks are as they were found; a Ctrl-C waits until they are."""
    if options.lock_clocks:
        if clocks.exists():
            clocks.unlink()  # jetson_clocks refuses to write over a file
        _jetson_clocks("--store", str(clocks))
    try:
        yield
    finally:
        before = [(number, signal.signal(number, signal.SIG_IGN)) for number in (signal.SIGINT, signal.SIGTERM)]
        found = board.power_mode
        if options.power_modes and found is not None and found.number is not None:
            _restored(f"mode    {found.name} ({found.number})", lambda: set_power_mode(found.number or 0))
        if options.lock_clocks:
            _restored("clocks  as found", lambda: _jetson_clocks("--restore", str(clocks)))
        for number_, handler in before:
            signal.signal(number_, handler)


def _restored(what: str, action: Callable[[], Any]) -> None:
    try:
        action()
    except RtdaError as err:
        say(f"! not restored: {what}: {err.message}; {err.hint}")
    else:
        say(f"{what} restored")


def _jetson_clocks(*words: str) -> None:
    try:
        done = subprocess.run(
            ["jetson_clocks", *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_CLOCKS_TIMEOUT_S,
        )
    except (OSError, subprocess.TimeoutExpired) as err:
        raise DeviceError(
            f"jetson_clocks does not run: {err}", hint="it is part of JetPack; or no --lock-clocks"
        ) from err
    if done.returncode != 0:
        last = (done.stdout.strip().splitlines() or ["it gave no reason"])[-1]
        raise DeviceError("jetson_clocks failed", why=last, hint="it needs root; or leave --lock-clocks out")


@contextlib.contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """A SIGTERM ends the run as Ctrl-C does, so that power mode and clocks are put back."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


# --- the page ------------------------------------------------------------------------------------------------------


def page(found: Dict[str, Any], rows: Sequence[Row]) -> str:
    """The report as Markdown: the board, a line for each row, the long runs, and what the figures mean."""
    done = [(row, found["rows"][row.key]) for row in rows if row.key in found["rows"]]
    long_rows = [(row, bench) for row, bench in done if row.seconds > min(row.seconds for row in rows)]
    parts = [f"# {_title(found)}", table(_COLUMNS, [_cells(row, bench) for row, bench in done])]
    for row, bench in long_rows:
        windows = bench["windows"]
        fifth = max(1, len(windows) // 5)
        first, last = (
            sum(w["frames"] for w in part) / sum(w["seconds"] for w in part)
            for part in (windows[:fifth], windows[-fifth:])
        )
        change = f"{first:.1f} frames/s at first, {last:.1f} at last ({100 * (last / first - 1):+.1f} %)"
        parts.append(f"{row.key}: {row.seconds / 60:g} minutes: {change}; over time in `bench/{row.key}/report.html`.")
    notes = [
        "network: one call by the host's clock, copies included; end to end: preprocessing, network, mask at the"
        " frame's size; the camera is not in it",
        "W is the module's power; the carrier board, the camera and the supply's loss are not in it",
        "mJ/frame is W over frames/s, idle power included",
        *found["notes"],
    ]
    return "\n\n".join([*parts, "\n".join(f"- {note}" for note in notes)]) + "\n"


def _title(found: Dict[str, Any]) -> str:
    board = found["board"]
    if not board["is_jetson"]:
        return "Not a Jetson: no power figures"
    return f"{board['model'] or 'A Jetson'}, Jetson Linux {board['l4t'] or 'of unknown release'}"


def _cells(row: Row, bench: Dict[str, Any]) -> Dict[str, Any]:
    unknown = dict.fromkeys(("gpu_mhz", "temperature_max_c", "power_w"))
    seen, stages = bench["conditions"]["jetson"] or unknown, bench["stages"]
    shares = {name: [f"{stages[name][key]:.1f}" for key in ("p50", "p95", "p99")] for name in ("infer", "total")}
    return {
        "mode": row.mode.name if row.mode else "as found",
        "model": row.onnx.name.split(".")[0],
        "precision": row.precision,
        "fps": bench["throughput"],
        "energy": None if seen["power_w"] is None else 1e3 * seen["power_w"] / bench["throughput"],
        **{name: " / ".join(figures) for name, figures in shares.items()},
        **{name: seen[name] for name in unknown},
    }


if __name__ == "__main__":
    sys.exit(main())
