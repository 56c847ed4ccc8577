"""The manners of the command line: help, exit codes, what goes to which stream, colours, JSON."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Dict, List, Optional, Tuple

import pytest
from cli.commandline import ANSI, VERBS, arguments, assert_refused, environment, files_below, invoke, run_command

FAST = "test://bars?fps=0&frames=4&size=96x64"


# help


def test_help_lists_every_verb_with_a_sentence() -> None:
    shown = run_command("--help")
    assert shown.code == 0 and shown.err == ""
    for verb in VERBS:
        assert re.search(rf"\b{verb}\b +\w+", shown.out), verb
    assert not ANSI.search(shown.out)


def test_no_words_at_all_show_the_help() -> None:
    assert "Usage: rtda-deploy" in run_command().out


def test_the_module_and_the_script_are_the_same_command() -> None:
    words = [sys.executable, "-m", "rtda_deploy", "--version"]
    done = subprocess.run(words, capture_output=True, text=True, env=environment())
    assert done.stdout == run_command("--version").out
    assert re.fullmatch(r"rtda-deploy \d+\.\d+\.\d+\S*\n", done.stdout)


def example_of(verb: str, monkeypatch: pytest.MonkeyPatch) -> List[str]:
    monkeypatch.setenv("COLUMNS", "200")
    shown = invoke(verb, "--help")
    assert shown.code == 0
    lines = [line.split("Example:")[1] for line in shown.out.splitlines() if "Example:" in line]
    assert len(lines) == 1, shown.out
    words = shlex.split(lines[0].strip())
    assert words[:2] == ["rtda-deploy", verb]
    return words[1:]


# What makes an example cheap; each is also an option a user may add to the command.
SMALLER = ("steps=2", "size=64x64", "batch_size=2", "val_pictures=2")
MORE: Dict[str, Tuple[str, ...]] = {
    "train": tuple(word for text in SMALLER for word in ("--set", text)),
    "bench": ("--duration", "0.2", "--warmup", "0", "--max-p95-ms", "60000"),
    "export": ("--size", "64x64"),
    "tradeoff": ("--frame", "160x96", "--rounds", "1"),
}
LEAVES = {
    "train": "runs/train/*/report.html",
    "eval": "runs/eval/*/report.html",
    "export": "last.onnx",
    "verify": "verify.html",
    "tradeoff": "runs/tradeoff/tradeoff.png",
    "label": "labels/masks/*.png",
}


@pytest.fixture()
def tiny_toytown(monkeypatch: pytest.MonkeyPatch) -> None:
    """ToyTown with a few pictures in each split and a clip of a few frames."""
    from rtda_deploy.cli.demo import parts
    from rtda_training.data.toytown import cache as toytown_cache

    for split in ("train", "val", "test"):
        monkeypatch.setitem(toytown_cache.DEFAULT_COUNTS, split, 8 if split == "train" else 2)
    monkeypatch.setattr(parts, "CLIP", parts.Clip(3, (64, 128), 15.0))


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "demo"])
def test_the_example_in_the_help_works(
    verb: str,
    here: Path,
    tiny_checkpoint: Path,
    tiny_onnx: Path,
    tiny_toytown: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = example_of(verb, monkeypatch)
    shutil.copy(tiny_checkpoint, "last.pth")
    for name in ("last.onnx", "model.onnx"):
        if any(name in word for word in words):
            shutil.copy(tiny_onnx, name)
    for name in ("verify", "frames"):
        shutil.copytree(tiny_checkpoint.parent / "verify", name)
    outcome = invoke(*words, *MORE.get(verb, ()))
    assert outcome.code == 0, outcome.err
    assert "Traceback" not in outcome.err
    assert outcome.out.strip(), "the result goes to stdout"
    if verb in LEAVES:
        assert list(here.glob(LEAVES[verb])), files_below(here)
    for line in outcome.err.splitlines():
        if line.startswith("next"):
            assert " rtda-deploy " in line


def test_the_demos_example_leaves_the_files_of_the_design_and_a_second_demo_reuses_its_network(
    here: Path, tiny_toytown: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = [*SMALLER, "backbone_weights="]  # of the published shape; the networks of tests are narrow
    words = [*example_of("demo", monkeypatch), *(word for text in small for word in ("--set", text))]
    first = invoke(*words, "--json")
    assert first.code == 0, first.err
    folder = here / "runs/demo/first"
    wanted = {"model.onnx", "best.pth", "last.pth", "overlay.mp4", "report.html", "summary.json"}
    assert wanted <= set(files_below(folder))
    assert json.loads((folder / "summary.json").read_text()) == first.json
    told = {key: first.json[key]["miou"] for key in ("source_only", "control", "adapted")}
    assert first.json["gain"] == pytest.approx(told["adapted"] - told["source_only"], abs=0.02)
    assert first.json["over_control"] == pytest.approx(told["adapted"] - told["control"], abs=0.02)
    first_stage = json.loads((folder / "summary.json").read_text())["source_only"]["model"]
    assert first_stage.endswith("control/stage-source-only.pth")
    stages = [(place / "stage-source-only.pth").read_bytes() for place in (folder, folder / "control")]
    assert stages[0] == stages[1], "the control takes over the demo's own first stage"
    second = invoke("demo", *words[words.index("--set") :], "--json")
    assert second.code == 0, second.err
    assert len(re.findall(r"^reuse ", second.err, re.MULTILINE)) == 2, "the network, and the control's"
    scores = [{key: value for key, value in told.json["adapted"].items() if key != "model"} for told in (first, second)]
    assert scores[0] == scores[1]
    assert second.json["control"]["miou"] == first.json["control"]["miou"]


# wrong usage: 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["trian"], "train"),
        (["exprot", "last.pth"], "export"),
        (["inspekt"], "inspect"),
    ],
)
def test_a_near_miss_suggests_the_command(words: List[str], said: str) -> None:
    outcome = invoke(*words)
    assert outcome.code == 2
    assert re.search(rf"Did you mean '?{said}'?", outcome.err), outcome.err


@pytest.mark.parametrize(
    "words",
    [["nothing-like-it"], ["run", "--nonsense"], ["eval", "x.onnx"], ["verify", "a"], ["bench", "m", "--window", "0"]],
)
def test_wrong_usage_exits_2_without_a_traceback(words: List[str]) -> None:
    outcome = invoke(*words)
    assert outcome.code == 2 and outcome.out == ""
    assert "Usage" in outcome.err and "Traceback" not in outcome.err


@pytest.mark.parametrize(
    ("words", "error", "fix"),
    [
        (["train", "sorce-only"], "recipe 'sorce-only' is unknown", "did you mean source-only"),
        (["train", "source-only", "--set", "stpes=4"], "setting stpes is unknown", r"did you mean steps\?.*known: "),
        (["train", "source-only", "--set", "optimizer.lr=1"], "setting .*optimizer.lr is unknown", "learning_rate"),
        (["train", "source-only", "--set", "steps"], "'steps' is not key=value", "--set steps=500"),
        (["train", "source-only", "--set", "steps=many"], "steps must be of type int", None),
        (["train", "source-only", "--set", "batch_size=0"], "batch_size must be positive", None),
        (["train", "source-only", "--set", "size=64by64"], "size '64by64'", "1024x512"),
        (["train", "source-only", "--set", "backbone=resnet50"], "resnet50", "resnet18"),
        (["train", "source-only", "--set", "device=tpu"], "device 'tpu' is unknown", "cpu"),
        (["train", "source-only", "--source", "toytown"], "names no data set", "kind:path"),
        (["train", "source-only", "--source", "kitty:x"], "kind 'kitty' is unknown", "toytown"),
        (["train", "source-only", "--source", "toytown:mars"], "no domain 'mars'", "source"),
        (["train", "source-only", "--resume", "last"], "--resume last", "--resume auto"),
        (["run"], "no source", "--camera 0"),
        (["run", "--camera", "test://bars"], "no model was named", "rtda-deploy export"),
        (["run", "model.onnx", "--camera", "gopher://x"], "unknown kind of source: gopher://x", "known: "),
        (["run", "model.onnx", "--camera", FAST, "--provider", "tpu"], "unknown provider 'tpu'", "cpu"),
        (["run", "model.onnx", "--camera", FAST, "--policy", "oldest"], "unknown policy 'oldest'", "newest"),
        (["run", "model.onnx", "--camera", FAST, "--save", "o.avi"], r"\.avi", r"\.mp4"),
        (["run", "model.onnx", "--camera", "test://bars?colour=red"], "colour=red", "fps"),
        (["bench", "model.onnx", "--frame-size", "big"], "size 'big'", "1024x512"),
        (["bench", "model.onnx", "--rate", "0"], "rate", ""),
        (["export", "last.pth", "--opset", "18"], "opset 18", "17"),
        (["export", "last.pth", "--precision", "fp8"], "precision 'fp8'", "fp32"),
        (["export", "last.pth", "--to", "tflite"], "tflite", "onnx"),
        (["eval", "model.onnx", "--data", "folder:data", "--protocol", "18"], "protocol 18", "19, 16 and 13"),
        (["eval", "model.onnx", "--data", "folder:data?splt=val"], "'splt' is unknown", "split"),
        (["verify", "model.onnx", "model.onnx", "--frames", "verify", "--limit", "fp8"], "fp8", "fp32"),
        (["inspect", "notes.txt"], "no kind that inspect knows", r"\.pth"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_makes_no_sense_exits_2_and_says_what_does(
    here: Path,
    tiny_checkpoint: Path,
    tiny_onnx: Path,
    tiny_data: Path,
    words: List[str],
    error: str,
    fix: Optional[str],
) -> None:
    if words != ["run", "--camera", "test://bars"]:
        (here / "model.onnx").symlink_to(tiny_onnx)
    (here / "last.pth").symlink_to(tiny_checkpoint)
    (here / "data").symlink_to(tiny_data)
    (here / "verify").symlink_to(tiny_checkpoint.parent / "verify")
    (here / "notes.txt").write_text("hello")
    before = files_below(here)
    if words[0] == "train" and not any(word.startswith("toytown") or word == "--source" for word in words):
        words = [*words, "--source", "folder:data", "--target", "folder:data"]
    assert_refused(invoke(*words), 2, error, fix)
    assert files_below(here) == before, "nothing is made before what was typed is understood"


# the environment: 3, a limit: 4


@pytest.mark.parametrize("verb", ["run", "bench"])
@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_a_provider_that_is_not_here_is_refused_not_replaced(tiny_onnx: Path, verb: str, provider: str) -> None:
    import onnxruntime

    if any(provider in name.lower() for name in onnxruntime.get_available_providers()):
        pytest.skip(f"this ONNX Runtime has {provider}")
    more = ["--camera", FAST] if verb == "run" else ["--duration", "0.1"]
    assert_refused(invoke(verb, tiny_onnx, "--provider", provider, *more), 3, provider, "--provider cpu")


def test_a_gpu_that_is_not_here_is_refused_for_training(here: Path, tiny_data: Path) -> None:
    torch = pytest.importorskip("torch", reason="training needs torch (Python >= 3.10)")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    domains = ["--source", f"folder:{tiny_data}", "--target", f"folder:{tiny_data}"]
    assert_refused(invoke("train", "source-only", *domains, "--set", "device=cuda"), 3, "cuda", "device=cpu")


@pytest.mark.parametrize("camera", ["63", "/dev/video63"])
def test_a_camera_that_is_not_here_exits_3(tiny_onnx: Path, camera: str) -> None:
    assert_refused(invoke("run", tiny_onnx, "--camera", camera), 3, "video63", ".")


def test_a_stream_nobody_serves_exits_3_without_the_password(tiny_onnx: Path) -> None:
    outcome = run_command("run", tiny_onnx, "--camera", "rtsp://user:secret@127.0.0.1:9/x")
    assert_refused(outcome, 3, r"rtsp://\*\*\*@127\.0\.0\.1:9/x")
    assert "secret" not in outcome.err


def test_a_csi_camera_without_gstreamer_exits_3(tiny_onnx: Path) -> None:
    from rtda_runtime._opencv import has_gstreamer

    if has_gstreamer():
        pytest.skip("this OpenCV has GStreamer")
    assert_refused(invoke("run", tiny_onnx, "--camera", "csi://0"), 3, "GStreamer", ".")


def test_an_engine_asked_for_without_tensorrt_exits_3_before_any_work(here: Path, tiny_checkpoint: Path) -> None:
    shutil.copy(tiny_checkpoint, "last.pth")
    assert_refused(invoke("export", "last.pth", "--to", "engine"), 3, "package tensorrt", "--to onnx")
    assert files_below(here) == ["last.pth"]


def test_a_limit_that_was_missed_exits_4_after_the_result(here: Path, tiny_onnx: Path) -> None:
    words = ["bench", tiny_onnx, "--duration", "0.1", "--warmup", "0", "--max-p95-ms"]
    missed = invoke(*words, "0.001", "--json", "--save", "times.json")
    assert missed.code == 4
    assert missed.json["stages"]["total"]["p95"] > 0.001
    assert json.loads((here / "times.json").read_text()) == missed.json, "the work itself was done"
    assert "0.001 ms" in missed.said["error"] and missed.said["fix"]
    assert invoke(*words, "60000", "--json").code == 0


# streams, colours, JSON


@pytest.mark.parametrize(
    "words",
    [
        ["doctor", "--json"],
        ["cameras", "--json"],
        ["inspect", "last.pth", "--json"],
        ["inspect", "model.onnx", "--json"],
        ["inspect", "spec.json", "--json"],
        ["bench", "model.onnx", "--duration", "0.1", "--warmup", "0", "--json"],
        ["verify", "last.pth", "model.onnx", "--frames", "verify", "--out", "v", "--json"],
        ["eval", "model.onnx", "--data", "folder:data", "--out", "e", "--json"],
        ["run", "model.onnx", "--camera", FAST, "--json"],
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_json_is_one_object_on_one_line(
    here: Path, tiny_checkpoint: Path, tiny_onnx: Path, tiny_data: Path, words: List[str]
) -> None:
    from rtda_deploy.spec import ModelSpec

    (here / "model.onnx").symlink_to(tiny_onnx)
    (here / "last.pth").symlink_to(tiny_checkpoint)
    (here / "data").symlink_to(tiny_data)
    (here / "verify").symlink_to(tiny_checkpoint.parent / "verify")
    ModelSpec(size_hw=(8, 8), class_names=("a",), palette=((0, 0, 0),)).save("spec.json")
    outcome = invoke(*words)
    assert outcome.code == 0, outcome.err
    assert isinstance(outcome.json, dict)
    with_words = invoke(*words[:-1])
    assert with_words.code == 0
    assert with_words.out.strip() and not with_words.out.startswith("{")


def test_run_prints_json_lines_and_the_last_is_the_summary(here: Path, tiny_onnx: Path) -> None:
    camera = "test://bars?fps=20&frames=20&size=96x64"
    outcome = invoke("run", tiny_onnx, "--camera", camera, "--policy", "every", "--json", "--report-every", "0.1")
    lines = [json.loads(line) for line in outcome.out.splitlines()]
    assert {line["event"] for line in lines[:-1]} == {"progress"} and lines[-1]["event"] == "summary"
    frames = [line["frames"] for line in lines]
    assert frames == sorted(frames) and frames[-1] == 20


def test_a_pipe_gets_no_colours_no_bars_and_no_carriage_returns(here: Path, tiny_onnx: Path, tiny_data: Path) -> None:
    for words in (
        ["run", tiny_onnx, "--camera", FAST],
        ["eval", tiny_onnx, "--data", f"folder:{tiny_data}"],
        ["run", "missing.onnx", "--camera", FAST],
    ):
        outcome = run_command(*words, cwd=here)
        for text in (outcome.out, outcome.err):
            assert not ANSI.search(text) and "\r" not in text and "━" not in text


def test_numbers_go_to_stdout_and_talk_to_stderr(tiny_onnx: Path) -> None:
    outcome = run_command("run", tiny_onnx, "--camera", FAST)
    assert outcome.code == 0
    assert "infer" in outcome.out and "4 frames in" in outcome.out
    assert "camera" in outcome.err and "engine" in outcome.err
    assert "engine" not in outcome.out


def on_a_terminal(words: list[str | Path], **env: str) -> str:
    """What a person would see, both streams, in a terminal of 100 columns."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [*arguments(), *map(str, words)],
        stdin=subprocess.DEVNULL,
        stdout=follower,
        stderr=follower,
        env=environment(TERM="xterm-256color", COLUMNS="100", **env),
    )
    os.close(follower)
    seen = b""
    while True:
        try:
            part = os.read(leader, 65536)
        except OSError:  # Linux's way to say that the other end is closed
            break
        if not part:
            break
        seen += part
    process.wait()
    os.close(leader)
    return seen.decode(errors="replace")


def test_a_terminal_gets_colour_unless_no_color_is_set() -> None:
    words: list[str | Path] = ["inspect", "missing.onnx"]
    colour = re.compile(r"\x1b\[[0-9;]*3[0-7]m")
    assert colour.search(on_a_terminal(words))
    plain = on_a_terminal(words, NO_COLOR="1")
    assert "error" in plain and "missing.onnx" in plain
    assert not colour.search(plain)


def test_a_terminal_gets_one_live_line_and_then_the_table(tiny_onnx: Path) -> None:
    seen = on_a_terminal(["run", tiny_onnx, "--camera", "test://bars?fps=60&frames=40&size=96x64"])
    assert re.search("\r\x1b\\[2K.*fps │ age .* │ dropped", seen), "written over, not below each other"
    assert "frames in" in seen
    assert "Traceback" not in seen


def test_a_reader_that_goes_away_is_no_error(tiny_onnx: Path) -> None:
    process = subprocess.Popen(
        [*arguments(), "inspect", str(tiny_onnx)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    said = process.stderr.read().decode()
    process.stderr.close()
    process.wait()
    assert "Traceback" not in said and "BrokenPipe" not in said


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_stdout_is_one_error(tiny_onnx: Path) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*arguments(), "inspect", str(tiny_onnx)],
            stdout=full,
            stderr=subprocess.PIPE,
            env=environment(),
        )
    assert done.returncode == 1
    assert b"No space left" in done.stderr and b"Traceback" not in done.stderr


def test_verbose_logs_to_stderr(tiny_onnx: Path) -> None:
    outcome = run_command("--verbose", "run", tiny_onnx, "--camera", FAST, "--json")
    assert outcome.code == 0 and outcome.json["frames"] == 4


# run without a model


def test_run_takes_the_newest_model_and_says_which(here: Path, tiny_onnx: Path) -> None:
    for folder, age in (("runs/export/old", 20), ("runs/export/new", 10), ("runs/export/broken", 0)):
        (here / folder).mkdir(parents=True)
        path = here / folder / "model.onnx"
        if age:
            shutil.copy(tiny_onnx, path)
        else:
            path.write_bytes(tiny_onnx.read_bytes()[:1000])
        os.utime(path, (1_700_000_000 - age, 1_700_000_000 - age))
    outcome = invoke("run", "--camera", FAST, "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.json["model"] == "runs/export/new/model.onnx"
    assert re.search(r"^model +runs/export/new/model\.onnx", outcome.err, re.MULTILINE)


def test_a_spec_can_be_given_to_a_model_without_one(here: Path, tiny_onnx: Path) -> None:
    import onnx

    from rtda_runtime.engines import open_engine

    with open_engine(tiny_onnx, "cpu") as engine:
        engine.spec.save("spec.json")
    model = onnx.load(str(tiny_onnx))
    del model.metadata_props[:]
    onnx.save(model, "bare.onnx")
    assert invoke("run", "bare.onnx", "--camera", FAST, "--spec", "spec.json").code == 0
    assert invoke("bench", "bare.onnx", "--duration", "0.1", "--warmup", "0", "--spec", "spec.json").code == 0
    stamped = invoke("export", "bare.onnx", "--spec", "spec.json", "--out", "stamped", "--json")
    assert stamped.code == 0, stamped.err
    assert invoke("run", "stamped/bare.onnx", "--camera", FAST).code == 0


def test_doctor_names_what_is_missing_with_its_install_line() -> None:
    found = {finding["name"]: finding for finding in invoke("doctor", "--json").json["findings"]}
    assert found["Python"]["state"] == "ok"
    for finding in found.values():
        assert finding["state"] in ("ok", "missing", "problem")
        if finding["name"] in ("tensorrt", "openvino") and finding["state"] == "missing":
            assert "rtda-deploy[" in finding["fix"] or "apt-get" in finding["fix"]
    masks = found["compiled postprocess"]
    assert masks["state"] == "ok" or "pip install" in masks["fix"]
    assert invoke("doctor", "--markdown").out.startswith("| what |")
