"""Speed, power and heat of BiSeNet on a Jetson.

    python3 benchmarks/jetson prepare --out models                 on a desktop with torch: the .onnx files
    python3 benchmarks/jetson --onnx-dir models --out runs/jetson  on the board; goes on where it was stopped

R18 and R101 at 512x256, 1024x512 and 2048x1024 in FP16, INT8 and FP32, in the power mode that is found; with sudo also
in others (--power-modes all), or with clocks locked (--lock-clocks), both put back at the end. --sustained 20 runs one
of them for 20 minutes and shows whether heat slows it down. Ends with OUT/jetson.json and OUT/jetson.md. Without a
Jetson and TensorRT: --provider cpu measures the same without power figures.

Exit codes: 0 done, 1 a row failed, 2 wrong usage, 3 something is not there, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
from pathlib import Path
from typing import Iterator, Optional, Sequence, Tuple

from rtda_deploy.errors import RtdaError

from .cases import NETWORKS, PRECISIONS, SIZES_WH, cases, size_text
from .run import INTERRUPTED, Run


def main(arguments: Optional[Sequence[str]] = None, root: Path = Path("/")) -> int:
    """Run the command line; its exit code.

    Args:
        arguments: Without the program's name; None: those of this process.
        root: Where ``/etc``, ``/proc`` and ``/sys`` begin.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if words[:1] == ["prepare"]:
            return _prepare(_prepare_options(words[1:]))
        options = _options(words)
        with _sigterm_as_interrupt():
            return Run(options, root, say).all()
    except RtdaError as err:
        say(f"error  {err.message}")
        for name, text in (("why", err.why), ("fix", err.hint)):
            if text:
                say(f"{name:<6} {text}")
        return err.exit_code
    except KeyboardInterrupt:
        say("stopped")
        return INTERRUPTED


def say(text: str) -> None:
    """A line for people, on stderr."""
    print(text, file=sys.stderr, flush=True)


def _prepare(options: argparse.Namespace) -> int:
    from .prepare import prepare

    chosen = cases(options.networks, options.sizes, options.precisions)
    written = prepare(chosen, options.out, say, dict(options.checkpoint))
    say(f"{len(written)} files written to {options.out}")
    say(f"next    scp -r {options.out} benchmarks/jetson dist/*.whl BOARD:")
    say(f"        and there: python3 jetson --onnx-dir {options.out.name} --out runs/jetson")
    return 0


def _options(words: Sequence[str]) -> argparse.Namespace:
    parser = _parser("python3 benchmarks/jetson", __doc__ or "")
    parser.add_argument("--onnx-dir", type=Path, required=True, help="what prepare wrote")
    parser.add_argument("--out", type=Path, default=Path("runs/jetson"), help="folder of the results (%(default)s)")
    parser.add_argument("--provider", choices=("tensorrt", "cpu"), default="tensorrt")
    _add_choice(parser)
    parser.add_argument("--power-modes", metavar="all|N,N", help="set these in turn, with sudo (default: as found)")
    parser.add_argument("--lock-clocks", action="store_true", help="run jetson_clocks first, with sudo")
    parser.add_argument("--sustained", type=_positive, metavar="MINUTES", help="also run one row for so long")
    parser.add_argument("--frame-size", default="1280x720", metavar="WxH", help="of the camera (%(default)s)")
    parser.add_argument("--seconds", type=_positive, default=10.0, help="measured for each row (%(default)s)")
    parser.add_argument("--warmup", type=float, default=3.0, help="seconds not measured (%(default)s)")
    parser.add_argument("--idle", type=_positive, default=5.0, help="seconds the idle board is watched (%(default)s)")
    parser.add_argument("--threads", type=int, help="of --provider cpu (default: one per core)")
    return parser.parse_args(words)


def _prepare_options(words: Sequence[str]) -> argparse.Namespace:
    parser = _parser("python3 benchmarks/jetson prepare", "Writes the .onnx files; needs torch and onnx.")
    parser.add_argument("--out", type=Path, default=Path("models"), help="folder of the files (%(default)s)")
    _add_choice(parser)
    text = "a trained checkpoint instead of random weights; may be given for each network"
    parser.add_argument("--checkpoint", type=_pair, action="append", default=[], metavar="r18=FILE.pth", help=text)
    return parser.parse_args(words)


def _pair(text: str) -> Tuple[str, Path]:
    network, _, path = text.partition("=")
    if network not in NETWORKS or not path:
        raise argparse.ArgumentTypeError(f"{text!r} is no NETWORK=FILE; networks: {', '.join(NETWORKS)}")
    return network, Path(path)


def _parser(program: str, text: str) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        prog=program, description=text, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )


def _add_choice(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--networks", default=",".join(NETWORKS), help="with commas (%(default)s)")
    sizes = ",".join(size_text(size) for size in SIZES_WH)
    parser.add_argument("--sizes", default=sizes, help="WIDTHxHEIGHT with commas (%(default)s)")
    parser.add_argument("--precisions", default=",".join(PRECISIONS), help="with commas (%(default)s)")


def _positive(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"must be positive, got {text}")
    return value


@contextlib.contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """A SIGTERM ends the run as Ctrl-C does, so that power mode and clocks are put back."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    try:
        before = signal.signal(signal.SIGTERM, interrupt)
    except ValueError:  # not in the main thread: signals do not arrive here
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
