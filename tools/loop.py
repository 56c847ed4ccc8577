"""The loop on ToyTown: a robot drives from noon into rain, tells it, collects, and drives on with an adapted network.

    python tools/loop.py [--out runs/loop] [--checkpoint last.pth] [--steps 0] [--seconds 180] [--fresh]

Each step is the command that a user types (docs/loop.md); it is run in the output folder, and printed. At the end stand
``report.html``, ``summary.json`` and all that the commands made. A training that is there is not done again (--fresh);
``--checkpoint`` takes a network of ``rtda-deploy demo`` or ``train`` instead of training one.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

from loop_footage import FPS, Footage, draw_footage
from loop_page import save_page

from rtda_deploy.errors import RtdaError
from rtda_deploy.sizes import parse_size

__all__ = ["Commands", "Plan", "Start", "in_a_process", "main", "run_loop"]

Start = Callable[[Sequence[str], Path], Tuple[int, str]]  # words and working directory to exit code and stdout

_MISSED = 4  # exit code of a limit that a candidate misses
_TRAINED = "noon"  # folder of the training
_KEPT = (_TRAINED, "noon.mp4", "drive.mp4", "labelled-noon", "labelled-rain")  # functions of the settings alone


class Plan(NamedTuple):
    """What is done, and how much of it.

    Attributes:
        checkpoint: A network to begin with; None: one is trained.
        train: Settings of that training, as of ``--set``.
        steps: Of the adaptation; 0: batch norms are mixed, nothing is trained.
        seconds: Of each of the two films.
        pictures: Labelled ones, by weather.
        size_hw: Rows and columns of the camera.
        speed: How many times faster than it was filmed the drive is played.
        shift: Time between false alarms.
        when: What is collected.
        limits: Of what is collected.
    """

    checkpoint: Optional[Path]
    train: Sequence[str] = ()
    steps: int = 0
    seconds: int = 180
    pictures: int = 40
    size_hw: Tuple[int, int] = (192, 384)
    speed: float = 5.0
    shift: str = "10m"
    when: str = "novelty > 0.75"
    limits: str = "minute=30,gap=1s,free=100MB"


def in_a_process(words: Sequence[str], folder: Path) -> Tuple[int, str]:
    """Run ``rtda-deploy`` in a process of its own; gives its exit code and its stdout."""
    command = [sys.executable, "-m", "rtda_deploy.cli", *words]
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True)
    return done.returncode, done.stdout


class Commands:
    """Runs ``rtda-deploy`` in a folder, and keeps what was typed, how long it took, and what it answered.

    Args:
        folder: The working directory.
        start: Runs it.

    Attributes:
        typed: ``(what for, command line, seconds)`` in their order.
    """

    def __init__(self, folder: Path, start: Start = in_a_process) -> None:
        self._folder, self._start = folder, start
        self.typed: List[Tuple[str, str, float]] = []

    def __call__(self, purpose: str, typed: str, *, allowed: Sequence[int] = (0,)) -> List[Dict[str, Any]]:
        """Run ``rtda-deploy`` with what is typed, and ``--json``; gives the objects that it printed.

        Raises:
            SystemExit: If it fails; what it said stands on stderr.
        """
        line = f"rtda-deploy {typed}"
        print(f"$ {line}", file=sys.stderr, flush=True)
        started = time.monotonic()
        code, out = self._start([*shlex.split(typed), "--json"], self._folder)
        if code not in allowed:
            raise SystemExit(f"error  exit code {code} of: {line}\nfix    cd {self._folder}, run it again")
        self.typed.append((purpose, line, round(time.monotonic() - started, 1)))
        return _objects(out)


def _objects(text: str) -> List[Dict[str, Any]]:
    """One JSON object over several lines, or one on each."""
    try:
        return [json.loads(text)]
    except ValueError:
        return [json.loads(line) for line in text.splitlines()]


def run_loop(folder: Path, plan: Plan, start: Start = in_a_process) -> Dict[str, Any]:
    """Once around; gives what ``summary.json`` holds."""
    started = time.monotonic()
    run = Commands(folder, start)
    given = _network(run, folder, plan)
    print("draw   noon.mp4, drive.mp4 and the labelled pictures", file=sys.stderr, flush=True)
    footage = draw_footage(folder, plan.seconds, plan.pictures, plan.size_hw)
    found: Dict[str, Any] = {"rain_s": footage.rain_s, "seconds_of_film": plan.seconds}
    deployed = _deploy(run, given)
    found["drive"] = _drive(run, plan)
    found["adapt"] = _adapt(run, given, plan)
    found["rank"] = run("rank both on what was collected", f"rank {given} adapted/best.pth --footage folder:hard")[-1]
    candidate = "robot-2/best.onnx"
    run(
        "export it, familiar with noon and rain",
        "export adapted/best.pth --to onnx --monitor --footage video:drive.mp4 --out robot-2",
    )
    run(
        "look at both on the drive",
        f"run models/robot --source drive.mp4 --compare {candidate} --save compare.mp4",
    )
    shadowed = run(
        "and beside the deployed one, as on the robot", f"run models/robot --source drive.mp4 --shadow {candidate}"
    )
    found["shadow"] = shadowed[-1]["shadow"]
    found["miou"] = _scores(run, footage, deployed, candidate)
    found["promote"] = _promote(run, candidate) if found["adapt"]["better"] else None
    found["inspect"] = run("where it comes from", f"inspect {candidate}")[-1]
    found["models"] = run("which models the robot has", "models list")[-1]["models"]
    found["commands"] = [{"for": purpose, "typed": line, "seconds": took} for purpose, line, took in run.typed]
    found["seconds"] = round(time.monotonic() - started, 1)
    (folder / "summary.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    save_page(folder, found, {"before": folder / deployed, "after": folder / candidate})
    return found


def _network(run: Commands, folder: Path, plan: Plan) -> str:
    """The path, from the folder, of the network that the robot begins with."""
    trained = f"{_TRAINED}/last.pth"
    if plan.checkpoint is not None:
        (folder / _TRAINED).mkdir(exist_ok=True)
        shutil.copyfile(plan.checkpoint, folder / trained)
    elif not (folder / trained).is_file():
        settings = "".join(f" --set {shlex.quote(setting)}" for setting in plan.train)
        run("train: the simulator's labels, the robot's city at noon", f"train toytown-demo{settings} --out {_TRAINED}")
    return trained


def _deploy(run: Commands, given: str) -> str:
    run(
        "export it with what the alarm needs, calibrated on a drive at noon",
        f"export {given} --to onnx --monitor --footage video:noon.mp4 --verify noon.mp4 --out robot-1",
    )
    run("deploy it", "models promote robot-1/last.onnx --frames video:noon.mp4 --max-frames 20")
    return "robot-1/last.onnx"


def _drive(run: Commands, plan: Plan) -> Dict[str, Any]:
    """Drive into the rain: what the alarm said, what was collected."""
    collect = f"--collect hard --collect-when {shlex.quote(plan.when)} --collect-limit {plan.limits}"
    told = run(
        "drive from noon into rain: alarm, and frames collected",
        f"run models/robot --source 'drive.mp4?speed={plan.speed:g}' --shift {plan.shift} {collect} --report-every 0.1",
    )
    curve: List[Tuple[float, float]] = []
    alarms: List[Dict[str, Any]] = []
    for row in told:
        if row["event"] == "shift":
            alarms.append({"at_s": curve[-1][0] if curve else 0.0, **row})
        elif "shift" in row:
            curve.append((row["frames"] / FPS, row["shift"]["evidence"]))
    summary = told[-1]
    return {"alarms": alarms, "evidence": curve, "shift": summary["shift"], "collected": summary["sinks"]["collect"]}


def _adapt(run: Commands, given: str, plan: Plan) -> Dict[str, Any]:
    how = f" --steps {plan.steps}" if plan.steps else ""
    return run("adapt it to them, without labels", f"adapt {given} --footage folder:hard{how} --out adapted")[-1]


def _scores(run: Commands, footage: Footage, before: str, after: str) -> Dict[str, Dict[str, Any]]:
    """By weather, on labelled frames nobody trained on: mIoU in percent before and after, and the interval of the gain.

    ``low`` and ``high`` are points, None where the pictures are too few to tell.
    """
    found = {}
    for weather, place in footage.labelled:
        typed = f"eval {before} {after} --data folder:{place.name}"
        first, second = run(f"mIoU before and after, {weather}", typed)[-1]["models"]
        gain = {key: second["gain"][key] for key in ("low", "high")}
        found[weather] = {"before": first["miou"], "after": second["miou"], **gain}
    return found


def _promote(run: Commands, candidate: str) -> Dict[str, Any]:
    return run(
        "make it the robot's, if it holds the limits",
        f"models promote {candidate} --frames folder:labelled-rain --max-slower 3",
        allowed=(0, _MISSED),
    )[-1]


def main(start: Start = in_a_process) -> int:
    """Parse, run, say where the page is."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("runs/loop"), help="folder (default: runs/loop)")
    parser.add_argument("--checkpoint", type=Path, help="a network to begin with, instead of training one")
    parser.add_argument("--set", action="append", default=[], help="a setting of the training: key=value")
    parser.add_argument("--steps", type=int, default=Plan(None).steps, help="of the adaptation; 0: batch norms alone")
    parser.add_argument("--seconds", type=int, default=Plan(None).seconds, help="of each film")
    parser.add_argument("--pictures", type=int, default=Plan(None).pictures, help="labelled ones, by weather")
    parser.add_argument("--size", default="384x192", help="of the camera: WIDTHxHEIGHT")
    parser.add_argument("--speed", type=float, default=Plan(None).speed, help="at which the drive is played")
    parser.add_argument("--shift", default=Plan(None).shift, help="time between false alarms")
    parser.add_argument("--when", default=Plan(None).when, help="what is collected")
    parser.add_argument("--limits", default=Plan(None).limits, help="of what is collected")
    parser.add_argument("--fresh", action="store_true", help="train and draw anew")
    typed = parser.parse_args()
    folder: Path = typed.out.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    _make_room(folder, fresh=typed.fresh)
    try:
        plan = Plan(
            typed.checkpoint,
            typed.set,
            typed.steps,
            typed.seconds,
            typed.pictures,
            parse_size(typed.size),
            typed.speed,
            typed.shift,
            typed.when,
            typed.limits,
        )
        found = run_loop(folder, plan, start)
    except RtdaError as err:
        raise SystemExit(f"error  {err.message}\nfix    {err.hint}") from err
    print(f"wrote  {typed.out}/report.html   in {found['seconds']:.0f} s")
    return 0


def _make_room(folder: Path, *, fresh: bool) -> None:
    """Remove what an earlier loop made, and nothing else."""
    made = ["robot-1", "robot-2", "hard", "adapted", "models", "runs", "compare.mp4", "summary.json", "report.html"]
    for name in [*made, *(_KEPT if fresh else ())]:
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())
