"""Two processes: they train what one would, one of them writes, and together they resume.

The processes start as ``torchrun`` starts them, on the CPU with gloo; ``_work`` below is what each of them runs.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import cv2
import numpy as np
import pytest
import torch

from rtda_deploy.errors import ConfigError
from rtda_training.adapt.components import Objective
from rtda_training.adapt.context import MixedBatch, PseudoLabels
from rtda_training.adapt.slots import components
from rtda_training.checkpoint import read_checkpoint
from rtda_training.plan import PlanConfig, load_plan
from rtda_training.stages.segmentation import SegmentationStage
from rtda_training.trainer import Trainer

STEPS = 4  # in all
RECIPES = {
    "adversary": ("rtda-after-source", ["steps=2", "bn_statistics=running"]),  # two stages, FDA in the second
    "teacher": ("classmix", ["steps=4", "ema.threshold=0.2", "ema.momentum=0.5"]),
}
# The same sums in another order: of two halves of a batch instead of the whole, 1e-7 each, through four steps.
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ``folder:`` set of eight pictures; every other one has labels in a corner only, and 255 elsewhere."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for name in ("images", "labels"):
        (folder / name).mkdir()
    for index in range(8):
        label = np.kron(rng.integers(0, 4, (4, 4)), np.ones((16, 16))).astype(np.uint8)
        frame = np.repeat((label * 50 + rng.integers(0, 40, (64, 64)))[..., None], 3, axis=2).astype(np.uint8)
        if index % 2:
            label[8:], label[:, 8:] = 255, 255
        assert cv2.imwrite(str(folder / f"images/{index}.png"), frame)
        assert cv2.imwrite(str(folder / f"labels/{index}.png"), label)
    return folder


def plan_of(recipe: str, data: Path, *more: str) -> PlanConfig:
    # SGD: Adam's steps are as large for a gradient that is nothing but rounding as for any other.
    name, settings = RECIPES[recipe]
    fixed = ["size=64x64", "batch_size=4", "device=cpu", "precision=fp32", "batch_norm=fixed"]
    fixed += ["optimizer.kind=sgd", "optimizer.learning_rate=0.00005", "optimizer.warmup_steps=0"]
    fixed += ["val_every=1", "val_pictures=1", "save_every=1"]
    address = f"folder:{data}"
    return load_plan(name, [*fixed, *settings, *more], source=address, target=address, val=address)


def environment(rank: int, port: int) -> dict[str, str]:
    """What ``torchrun`` sets, beside one thread each."""
    places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_PORT": port}
    return {
        **os.environ,
        **{key: str(value) for key, value in places.items()},
        "MASTER_ADDR": "127.0.0.1",
        "GROUP_RANK": "0",
        "OMP_NUM_THREADS": "1",
        "TORCHELASTIC_RUN_ID": "test",
    }


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture(scope="module")
def together(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes made: see ``_work``."""
    out, port = tmp_path_factory.mktemp("together"), free_port()
    command = [sys.executable, __file__, str(data), str(out)]
    logs = [open(out / f"log-{rank}.txt", "wb") for rank in range(2)]  # noqa: SIM115 - closed below
    started = [
        subprocess.Popen(command, env=environment(rank, port), stdout=log, stderr=subprocess.STDOUT)
        for rank, log in enumerate(logs)
    ]
    try:
        codes = [process.wait() for process in started]
    finally:
        for process, log in zip(started, logs, strict=True):
            process.kill()
            process.wait()
            log.close()
    assert codes == [0, 0], "\n".join((out / f"log-{rank}.txt").read_text() for rank in range(2))
    return out


@pytest.fixture(scope="module")
def alone(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process made of the same plans."""
    out = tmp_path_factory.mktemp("alone")
    for recipe in RECIPES:
        Trainer(plan_of(recipe, data), out / recipe).run()
    return out


def curve(folder: Path) -> dict[str, list[float]]:
    """Losses by their names, over the steps of all stages."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert len({(row["stage"], row["step"]) for row in rows}) == len(rows) == STEPS
    names = {name for row in rows for name in row} & {"seg", "adv", "disc", "mixed", "pseudo_share"}
    return {name: [row[name] for row in rows if name in row] for name in sorted(names)}


def farthest(one: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    """The largest difference of any tensor, relative to the tensor's largest value."""
    assert one.keys() == other.keys()
    gaps = []
    for key, value in one.items():
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            gaps.append(float((value - other[key]).abs().max() / value.abs().max().clamp(min=1e-30)))
    return max(gaps)


def players(folder: Path) -> dict[str, torch.Tensor]:
    """Weights of the network, and of the discriminator and the teacher where there is one."""
    checkpoint = read_checkpoint(folder / "last.pth")
    found = dict(checkpoint.weights)
    for part in checkpoint.training["run"]["parts"].values():
        for name in ("discriminator", "teacher"):
            found.update({f"{name}.{key}": value for key, value in part.get(name, {}).items()})
    return found


@pytest.mark.parametrize("recipe", RECIPES)
def test_losses_and_weights_of_two_processes_are_those_of_one(alone: Path, together: Path, recipe: str) -> None:
    one, two = curve(alone / recipe), curve(together / recipe)
    assert one.keys() == two.keys() and {"seg"} < one.keys()
    for name in one:
        np.testing.assert_allclose(two[name], one[name], rtol=TOLERANCE, err_msg=name)
    assert farthest(players(alone / recipe), players(together / recipe)) < TOLERANCE


def test_pictures_must_be_uneven_for_this_to_mean_anything(alone: Path, together: Path) -> None:
    """With each process's own count of labelled pixels, the same run ends elsewhere."""
    gap = np.array(curve(together / "local")["seg"]) / np.array(curve(alone / "adversary")["seg"]) - 1.0
    assert np.abs(gap).max() > 1000 * TOLERANCE
    assert farthest(players(alone / "adversary"), players(together / "local")) > 100 * TOLERANCE


@pytest.mark.parametrize("key", ["supervised", "pseudo", "mixed", "feature-distance"])
def test_means_over_some_of_the_pixels_are_over_those_of_all_processes(key: str) -> None:
    """Twice as many pixels on average: half the loss here."""
    from training.settings import make_context, make_stage  # the processes below do not see the tests' folder

    stage = make_stage()
    kind = components("objectives")[key]
    settings = {"things": ("road",), "fill": 0.0} if key == "feature-distance" else {}
    objective = cast(Objective, kind(kind.settings(**settings), stage))
    next(stage.network.parameters()).data.mul_(2.0)  # away from where it started: that has a distance, too
    losses = []
    for factor in (1.0, 2.0):
        labeler = SimpleNamespace(label=lambda context: PseudoLabels(context.label, None))
        mixer = SimpleNamespace(mix=lambda context: MixedBatch(context.source, context.label, None))
        context = make_context(stage, share=partial(torch.mul, factor), labeler=labeler, mixer=mixer)
        losses.append(float(objective.network_loss(context).detach()))
    assert losses[0] > 0
    assert losses[1] == pytest.approx(losses[0] / 2.0)


def test_two_processes_resume_bit_by_bit(together: Path) -> None:
    assert json.loads((together / "rank-0.json").read_text())["resumed"] == ["adapted", 1]
    whole, parts = players(together / "adversary"), players(together / "parts")
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[key], parts[key]) for key in whole)
    assert curve(together / "adversary") == curve(together / "parts")


def test_the_first_process_alone_writes_and_speaks(together: Path) -> None:
    said = [json.loads((together / f"rank-{rank}.json").read_text()) for rank in range(2)]
    assert any(path.endswith("last.pth") or ".last." in path for path in said[0]["written"])
    assert said[1]["written"] == []
    assert said[0]["events"] > 0 and said[1]["events"] == 0
    assert [each["hardware"] for each in said] == [["cpu x 2, fp32"] * len(RECIPES), []]


def test_a_batch_that_cannot_be_shared_is_refused(together: Path) -> None:
    for rank in range(2):
        said = json.loads((together / f"rank-{rank}.json").read_text())
        assert said["refused"] == "batch_size 3 cannot be shared evenly by 2 processes"
        assert "a multiple of 2" in said["hint"]


def test_the_command_line_speaks_once(data: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_addr", "127.0.0.1"]
    command += ["--master_port", str(free_port()), "-m", "rtda_deploy", "train", "rtda-light-thin", "--out", "run"]
    command += [word for name in ("source", "target", "val") for word in (f"--{name}", f"folder:{data}")]
    settings = ["size=64x64", "batch_size=4", "steps=1", "device=cpu", "precision=fp32"]
    command += [word for text in settings for word in ("--set", text)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "run/last.pth\n"
    heads = [line.split()[0] for line in done.stderr.splitlines()]
    assert [heads.count(word) for word in ("model", "run", "done", "wrote", "next")] == [1] * 5, done.stderr
    assert "cpu x 2" in done.stderr and "Warning" not in done.stderr and "deprecated" not in done.stderr
    assert (tmp_path / "run/report.html").is_file() and (tmp_path / "run/config.toml").is_file()


def test_without_a_folder_for_all_of_them_they_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from rtda_training.run_choice import new_training_folder

    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="2 processes") as caught:
        new_training_folder("recipe")
    assert "--out" in caught.value.hint
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert new_training_folder("recipe").parts[:2] == ("runs", "train")


def _work(data: Path, out: Path) -> None:
    """In each of the two processes: every recipe, one broken off and resumed, one not shared, one refused."""
    written: list[str] = []
    events: list[Any] = []
    sys.addaudithook(lambda name, arguments: _note(written, out, name, arguments))
    torch.set_num_threads(1)
    for recipe in RECIPES:
        Trainer(plan_of(recipe, data), out / recipe, events.append).run()
    _broken_off(plan_of("adversary", data), out / "parts")
    torch.distributed.barrier()  # the first process has saved
    state = read_checkpoint(out / "parts/last.pth")
    resumed = state.training["plan"]["stages"][state.training["stage_index"]]["name"], state.training["step"]
    Trainer(plan_of("adversary", data), out / "parts").run(state)
    SegmentationStage._share = lambda self, value: value  # type: ignore[method-assign]
    Trainer(plan_of("adversary", data), out / "local").run()
    hardware = [event.values["hardware"] for event in events if event.kind == "start"]
    said: dict[str, Any] = {"written": list(written), "events": len(events), "hardware": hardware}
    said["resumed"] = resumed
    try:
        Trainer(plan_of("adversary", data, "batch_size=3"), out / "refused")
    except ConfigError as err:
        said.update(refused=err.message, hint=err.hint)
    (out / f"rank-{os.environ['RANK']}.json").write_text(json.dumps(said))


def _broken_off(plan: PlanConfig, folder: Path) -> None:
    original, done = SegmentationStage.step, 0

    def step(self: SegmentationStage, number: int) -> dict[str, Any]:
        nonlocal done
        done += 1
        if done == STEPS:
            raise KeyboardInterrupt
        return original(self, number)

    SegmentationStage.step = step  # type: ignore[method-assign]
    try:
        Trainer(plan, folder).run()
    except KeyboardInterrupt:
        SegmentationStage.step = original  # type: ignore[method-assign]
    else:
        raise AssertionError("was not broken off")


def _note(written: list[str], out: Path, name: str, arguments: Any) -> None:
    """An audit hook: what this process opens for writing, makes or renames below ``out``."""
    changes = name in ("os.mkdir", "os.rename", "os.remove", "os.link", "os.symlink", "tempfile.mkstemp")
    if name == "open":
        changes = bool(int(arguments[2]) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
    path = str(arguments[0]) if arguments else ""
    if changes and path.startswith(str(out)):
        written.append(path)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    from narrow import narrow_networks

    narrow_networks()  # as in the process that they are compared with
    _work(Path(sys.argv[1]), Path(sys.argv[2]))
