"""What a user may give by mistake, or a stranger on purpose: one error each, its fix, and nothing half-written."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
from pathlib import Path
from typing import Any, Callable, Dict, List, Tuple

import numpy as np
import pytest
from cli.commandline import Outcome, assert_refused, files_below, invoke, run_command

cv2 = pytest.importorskip("cv2", reason="pictures need OpenCV")
torch = pytest.importorskip("torch", reason="checkpoints need torch (Python >= 3.10)")

FAST = "test://bars?fps=0&frames=3&size=96x64"


@pytest.fixture(autouse=True)
def standing(here: Path, tiny_checkpoint: Path, tiny_onnx: Path, tiny_data: Path) -> Path:
    """Good files beside the bad one, so that only the bad one is wrong."""
    (here / "good.onnx").symlink_to(tiny_onnx)
    (here / "good.pth").symlink_to(tiny_checkpoint)
    (here / "data").symlink_to(tiny_data)
    (here / "verify").symlink_to(tiny_checkpoint.parent / "verify")
    return here


def refused(words: List[str], code: int, error: str, fix: str = "") -> Outcome:
    """``assert_refused``, and the folder stays as it was."""
    before = files_below(Path())
    outcome = invoke(*words)
    assert_refused(outcome, code, error, fix)
    assert files_below(Path()) == before, "nothing is written"
    return outcome


# checkpoints


class Marks:
    """Runs a shell command when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Tuple[Callable[[str], int], Tuple[str]]:
        return os.system, (f"touch {self.marker}",)


def verbs_for_checkpoints(path: str) -> Dict[str, List[str]]:
    return {
        "inspect": ["inspect", path],
        "export": ["export", path, "--verify", "verify", "--out", "new"],
        "eval": ["eval", path, "--data", "folder:data", "--out", "new"],
        "verify": ["verify", path, "good.onnx", "--frames", "verify", "--out", "new"],
        "init": [
            *("train", "source-only", "--source", "folder:data", "--target", "folder:data", "--out", "new"),
            *("--set", "size=64x64", "--set", "batch_size=2", "--set", "steps=1", "--init", path),
        ],
    }


CHECKPOINT_VERBS = tuple(verbs_for_checkpoints(""))


def refused_checkpoint(verb: str, path: str, code: int, error: str, fix: str = "") -> None:
    outcome = invoke(*verbs_for_checkpoints(path)[verb])
    assert_refused(outcome, code, error, fix)
    assert not [name for name in files_below(Path()) if name.endswith((".onnx", ".pth", ".html")) and "new" in name]


@pytest.mark.parametrize("verb", CHECKPOINT_VERBS)
@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"this is a text, not a network\n", "is no checkpoint"),
        (bytes(np.random.default_rng(0).integers(0, 256, 5000, np.uint8)), "is no checkpoint"),
        (b"PK\x03\x04" + b"\0" * 200, "is no checkpoint"),
        (b"", r"is empty \(0 bytes\)"),
    ],
    ids=["text", "random", "zip", "empty"],
)
def test_a_checkpoint_that_is_none_is_refused(verb: str, content: bytes, error: str) -> None:
    Path("bad.pth").write_bytes(content)
    refused_checkpoint(verb, "bad.pth", 1, f"bad.pth {error}")


@pytest.mark.parametrize("verb", CHECKPOINT_VERBS)
def test_a_checkpoint_cut_short_is_refused(verb: str, tiny_checkpoint: Path) -> None:
    Path("bad.pth").write_bytes(tiny_checkpoint.read_bytes()[:1_000_000])
    refused_checkpoint(verb, "bad.pth", 1, r"bad\.pth is no checkpoint", "copied whole")


@pytest.mark.parametrize("verb", CHECKPOINT_VERBS)
def test_a_folder_or_nothing_at_all_is_no_checkpoint(verb: str) -> None:
    Path("bad.pth").mkdir()
    refused_checkpoint(verb, "bad.pth", 1, r"bad\.pth: Is a directory", "name a file")
    refused_checkpoint(verb, "missing.pth", 1, r"missing\.pth: No such file", "spelling")


@pytest.mark.parametrize("verb", CHECKPOINT_VERBS)
@pytest.mark.parametrize("how", ["torch.save", "pickle", "old torch.save"])
def test_code_in_a_checkpoint_does_not_run(verb: str, how: str, standing: Path) -> None:
    marker = standing / "it-ran"
    content = {"format": "rtda-deploy", "weights": {"w": torch.zeros(1)}, "training": Marks(marker)}
    if how == "pickle":
        Path("evil.pth").write_bytes(pickle.dumps(content))
    else:
        torch.save(content, "evil.pth", _use_new_zipfile_serialization=how == "torch.save")
    refused_checkpoint(verb, "evil.pth", 1, "code in it was not run", "state_dict")
    assert not marker.exists()
    with open("evil.pth", "rb") as stream:  # the trap is real: whoever unpickles it runs it
        if how == "pickle":
            pickle.load(stream)
            assert marker.exists()


@pytest.mark.parametrize("verb", CHECKPOINT_VERBS)
def test_a_checkpoint_of_another_network_says_which_keys_differ(verb: str) -> None:
    torch.save({"features.0.weight": torch.zeros(8, 3, 3, 3), "classifier.bias": torch.zeros(10)}, "other.pth")
    refused_checkpoint(verb, "other.pth", 1, r"other\.pth.*(features\.0\.weight|classifier\.bias)")


@pytest.mark.parametrize("verb", CHECKPOINT_VERBS)
@pytest.mark.parametrize("change", ["lacks", "adds", "reshapes"])
def test_an_own_checkpoint_that_does_not_fit_says_which_key(verb: str, change: str, tiny_checkpoint: Path) -> None:
    content: Dict[str, Any] = torch.load(tiny_checkpoint, weights_only=True)
    key = next(name for name in content["weights"] if name.endswith("weight"))
    if change == "lacks":
        del content["weights"][key]
    elif change == "adds":
        key = "another.head.weight"
        content["weights"][key] = torch.zeros(3)
    else:
        content["weights"][key] = torch.zeros(2, 2)
    torch.save(content, "edited.pth")
    refused_checkpoint(verb, "edited.pth", 1, key.replace(".", r"\."))


@pytest.mark.parametrize("verb", CHECKPOINT_VERBS)
def test_weights_that_are_nan_are_said_in_every_verb(verb: str, tiny_checkpoint: Path) -> None:
    content: Dict[str, Any] = torch.load(tiny_checkpoint, weights_only=True)
    content["weights"]["head.weight"] *= float("nan")
    torch.save(content, "broken.pth")
    refused_checkpoint(verb, "broken.pth", 1, r"broken\.pth holds NaN or infinity.*head\.weight", "earlier checkpoint")


@pytest.mark.parametrize("verb", CHECKPOINT_VERBS)
def test_a_checkpoint_with_a_spec_of_the_future_is_refused_with_the_fix(verb: str, tiny_checkpoint: Path) -> None:
    content: Dict[str, Any] = torch.load(tiny_checkpoint, weights_only=True)
    content["spec"] = content["spec"].replace('"version": 1', '"version": 9')
    torch.save(content, "future.pth")
    refused_checkpoint(verb, "future.pth", 1, "is version 9", "pip install --upgrade")


def test_a_checkpoint_is_not_run_but_exported_first() -> None:
    refused(["run", "good.pth", "--camera", FAST], 1, r"good\.pth is no model that runs here", r"export good\.pth")


def test_resuming_another_plan_is_refused(tiny_data: Path) -> None:
    words = ["train", "source-only", "--source", "folder:data", "--target", "folder:data", "--out", "run"]
    words += [word for text in ("size=64x64", "batch_size=2", "steps=1") for word in ("--set", text)]
    assert invoke(*words).code == 0
    refused([*words, "--set", "seed=9", "--resume", "auto"], 1, "another plan.*seed", "--out")


# ONNX files


def verbs_for_onnx(path: str) -> Dict[str, List[str]]:
    return {
        "run": ["run", path, "--camera", FAST, "--save", "o.mp4"],
        "bench": ["bench", path, "--duration", "0.1", "--save", "times.json"],
        "eval": ["eval", path, "--data", "folder:data", "--out", "new"],
        "inspect": ["inspect", path],
        "verify": ["verify", "good.pth", path, "--frames", "verify", "--out", "new"],
        "export": ["export", path, "--out", "new"],
    }


ONNX_VERBS = tuple(verbs_for_onnx(""))


@pytest.mark.parametrize("verb", ONNX_VERBS)
@pytest.mark.parametrize("kind", ["truncated", "text", "random"])
def test_an_onnx_that_is_none_is_refused(verb: str, kind: str, tiny_onnx: Path) -> None:
    random = bytes(np.random.default_rng(0).integers(0, 256, 5000, np.uint8))
    content = {"truncated": tiny_onnx.read_bytes()[:2_000_000], "text": b"hello\n", "random": random}[kind]
    Path("bad.onnx").write_bytes(content)
    outcome = invoke(*verbs_for_onnx("bad.onnx")[verb])
    assert_refused(outcome, 1, r"bad\.onnx")
    good = {"good.onnx", "good.pth", "data", "verify"}
    assert {name.partition("/")[0] for name in files_below(Path())} <= {"bad.onnx", *good}


@pytest.mark.parametrize("verb", ONNX_VERBS)
def test_an_empty_a_missing_and_a_folder_named_onnx_are_refused(verb: str) -> None:
    Path("empty.onnx").touch()
    Path("folder.onnx").mkdir()
    for name, error in (
        ("empty.onnx", "is empty"),
        ("missing.onnx", "No such file"),
        ("folder.onnx", "Is a directory"),
    ):
        assert_refused(invoke(*verbs_for_onnx(name)[verb]), 1, f"{name}.*{error}", ".")


@pytest.mark.parametrize("verb", [verb for verb in ONNX_VERBS if verb != "inspect"])  # which shows it
def test_an_onnx_without_a_spec_is_refused_with_what_to_do(verb: str, tiny_onnx: Path) -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load(str(tiny_onnx))
    del model.metadata_props[:]
    onnx.save(model, "bare.onnx")
    assert_refused(
        invoke(*verbs_for_onnx("bare.onnx")[verb]), 1, r"bare\.onnx.*(rtda\.spec|spec)", r"--spec spec\.json"
    )


@pytest.mark.parametrize("verb", ONNX_VERBS)
def test_an_onnx_with_a_broken_spec_says_what_is_wrong_with_it(verb: str, tiny_onnx: Path) -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load(str(tiny_onnx))
    (entry,) = [entry for entry in model.metadata_props if entry.key == "rtda.spec"]
    entry.value = entry.value.replace('"stretch"', '"squeeze"')
    onnx.save(model, "odd.onnx")
    assert_refused(invoke(*verbs_for_onnx("odd.onnx")[verb]), 1, r"odd\.onnx.*resize.*squeeze", "stretch, letterbox")


# recordings and pictures


def write_clip(path: Path, frames: int = 12) -> Path:
    av = pytest.importorskip("av", reason="writing videos needs PyAV")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        rng = np.random.default_rng(0)
        for _ in range(frames):
            picture = rng.integers(0, 256, (64, 96, 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="bgr24")))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize("kind", ["missing", "empty", "random", "text", "truncated"])
def test_a_bad_video_is_refused(kind: str) -> None:
    """In a process of its own: FFmpeg writes to stderr by itself, unless it is told not to."""
    if kind == "truncated":  # the index of an .mp4 stands at its end
        Path("bad.mp4").write_bytes(write_clip(Path("whole.mp4")).read_bytes()[:3000])
    elif kind != "missing":
        random = bytes(np.random.default_rng(0).integers(0, 256, 5000, np.uint8))
        Path("bad.mp4").write_bytes({"empty": b"", "random": random, "text": b"hello\n"}[kind])
    before = files_below(Path())
    outcome = run_command("run", "good.onnx", "--camera", "bad.mp4", "--save", "o.mp4", cwd=Path())
    assert_refused(outcome, 1, r"bad\.mp4", ".")
    assert all(line.split()[0] in ("error", "why", "fix") for line in outcome.err.splitlines()), outcome.err
    assert files_below(Path()) == before


@pytest.mark.parametrize(
    "words",
    [
        ["run", "good.onnx", "--camera", "pictures"],
        ["bench", "good.onnx", "--source", "pictures"],
        ["verify", "good.pth", "good.onnx", "--frames", "pictures"],
        ["export", "good.pth", "--verify", "pictures", "--out", "new"],
        ["eval", "good.onnx", "--data", "folder:pictures"],
        ["train", "source-only", "--source", "folder:pictures", "--target", "folder:data", "--out", "new"],
    ],
    ids=lambda words: words[0],
)
def test_a_folder_without_pictures_is_refused(words: List[str]) -> None:
    Path("pictures").mkdir()
    Path("pictures/notes.txt").write_text("hello")
    assert_refused(invoke(*words), 1, r"(no pictures|no picture)", ".")


@pytest.mark.parametrize("name", ["broken.png", "empty.jpg"])
def test_a_broken_picture_is_named(name: str) -> None:
    Path("pictures").mkdir()
    Path("pictures", name).write_bytes(b"\x89PNG\r\n\x1a\n" if name == "broken.png" else b"")
    refused(["run", "good.onnx", "--camera", "pictures"], 1, name, ".")
    refused(["run", "good.onnx", "--camera", f"pictures/{name}"], 1, name, ".")


def picture(kind: str) -> np.ndarray:
    rng = np.random.default_rng(3)
    shapes: Dict[str, Tuple[int, ...]] = {
        "1x1": (1, 1, 3),
        "1x900": (900, 1, 3),
        "8000x4000": (4000, 8000, 3),
        "grey": (48, 70),
        "RGBA": (48, 70, 4),
        "16 bit": (48, 70, 3),
        "odd": (33, 47, 3),
    }
    shape = shapes[kind]
    if kind == "8000x4000":
        return np.tile(rng.integers(0, 256, (40, 80, 3), np.uint8), (100, 100, 1))
    top = 65536 if kind == "16 bit" else 256
    return rng.integers(0, top, shape).astype(np.uint16 if kind == "16 bit" else np.uint8)


@pytest.mark.parametrize("kind", ["1x1", "1x900", "8000x4000", "grey", "RGBA", "16 bit", "odd"])
def test_a_picture_of_any_size_and_kind_works(kind: str) -> None:
    frame = picture(kind)
    assert cv2.imwrite("picture.png", frame, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    save = [] if kind == "8000x4000" else ["--save", "o.mp4"]  # encoding it takes seconds and shows nothing new
    outcome = invoke("run", "good.onnx", "--camera", "picture.png", "--masks", "masks", *save, "--json")
    assert outcome.code == 0, outcome.err
    mask = cv2.imread("masks/000000.png", cv2.IMREAD_UNCHANGED)
    assert mask.shape == frame.shape[:2] and mask.dtype == np.uint8 and mask.max() < 19
    assert json.loads(outcome.out.splitlines()[-1])["frames"] == 1


def test_pictures_of_many_sizes_give_masks_but_no_video() -> None:
    Path("mixed").mkdir()
    for index, size in enumerate([(40, 60), (64, 64)]):
        assert cv2.imwrite(f"mixed/{index}.png", np.zeros((*size, 3), np.uint8))
    assert invoke("run", "good.onnx", "--camera", "mixed", "--masks", "masks").code == 0
    outcome = invoke("run", "good.onnx", "--camera", "mixed", "--save", "o.mp4")
    assert outcome.code == 1 and "64x64" in outcome.said["error"] and outcome.said["fix"]
    assert "wrote o.mp4" in outcome.out, "what was filmed until then is kept, whole, and told"
    assert cv2.VideoCapture("o.mp4").get(cv2.CAP_PROP_FRAME_COUNT) == 1


# labels


def bad_labels(kind: str, source: Path) -> None:
    shutil.copytree(source, "bad")
    for path in sorted(Path("bad/labels").iterdir()):
        label = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if kind == "outside":
            label[3, 4], label[5, 6] = 34, 19
        elif kind == "colours":
            label = np.repeat(label[..., None], 3, axis=2)
        elif kind == "size":
            label = label[:, :-2].copy()
        elif kind == "16 bit":
            label = label.astype(np.uint16)
        if kind == "missing":
            path.unlink()
        elif kind == "broken":
            path.write_bytes(b"\x89PNG\r\n\x1a\n")
        else:
            assert cv2.imwrite(str(path), label)
    texts = {
        "classes": "{}",
        "no JSON": "{",
        "classes with one colour": '{"names": ["a", "b"], "palette": [[1, 2, 3]]}',
    }
    if kind in texts:
        Path("bad/classes.json").write_text(texts[kind])


LABELS = {
    "outside": (r"outside its 19 classes: 19, 34", r"0\.\.18 and 255"),
    "colours": (r"uint8 \(64, 96, 3\)", "8-bit grey PNG"),
    "16 bit": (r"uint16 \(64, 96\)", "8-bit grey PNG"),
    "size": (r"(94x64|not of the picture's size)", None),
    "missing": (r"6 of 6 pictures .* have no label", "same name"),
    "broken": (r"damaged PNG or cut off", "copy it again"),
    "classes": (r"classes\.json", "names"),
    "no JSON": (r"classes\.json", "names"),
    "classes with one colour": (r"2 names and 1 colours", None),
}


@pytest.mark.parametrize("verb", ["train", "eval .onnx", "eval .pth"])
@pytest.mark.parametrize("kind", LABELS)
def test_labels_that_are_not_what_they_should_be_are_named(verb: str, kind: str, tiny_data: Path) -> None:
    bad_labels(kind, tiny_data)
    words = ["eval", "good.onnx" if verb == "eval .onnx" else "good.pth", "--data", "folder:bad", "--out", "new"]
    if verb == "train":
        words = ["train", "source-only", "--source", "folder:bad", "--target", "folder:bad", "--out", "new"]
        words += [word for text in ("size=64x64", "batch_size=2", "steps=1") for word in ("--set", text)]
    outcome = invoke(*words)
    error, fix = LABELS[kind]
    assert_refused(outcome, 1, error, fix)
    assert "bad" in outcome.said["error"], "the file is named"
    assert not [name for name in files_below(Path()) if re.match(r"new/(.*\.pth|report\.html)", name)]


def test_a_loss_that_is_no_number_stops_the_training() -> None:
    words = ["train", "source-only", "--source", "folder:data", "--target", "folder:data", "--out", "new"]
    more = ("size=64x64", "batch_size=2", "steps=8", "optimizer.learning_rate=1e30", "optimizer.warmup_steps=0")
    outcome = invoke(*words, *(word for text in more for word in ("--set", text)))
    assert_refused(outcome, 1, "(?i)(nan|finite)", "learning_rate|rate")


# places that cannot be written to


CLOSED = "/proc/rtda"  # root cannot write there either


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="/proc is Linux's")
@pytest.mark.parametrize(
    "words",
    [
        ["run", "good.onnx", "--camera", FAST, "--save", f"{CLOSED}.mp4"],
        ["run", "good.onnx", "--camera", FAST, "--save", f"{CLOSED}/o.mp4"],
        ["run", "good.onnx", "--camera", FAST, "--masks", CLOSED],
        ["bench", "good.onnx", "--duration", "0.1", "--warmup", "0", "--save", f"{CLOSED}.json"],
        ["eval", "good.onnx", "--data", "folder:data", "--out", CLOSED],
        ["export", "good.pth", "--verify", "verify", "--out", CLOSED],
        ["export", "good.onnx", "--out", CLOSED],
        ["verify", "good.pth", "good.onnx", "--frames", "verify", "--out", CLOSED],
        ["train", "source-only", "--source", "folder:data", "--target", "folder:data", "--out", CLOSED],
        ["demo", "--out", CLOSED],
    ],
    ids=lambda words: f"{words[0]} {words[-2]} {words[-1]}",
)
def test_a_place_that_takes_no_files_is_one_error(words: List[str]) -> None:
    outcome = invoke(*words)
    assert_refused(outcome, 1, CLOSED, ".")
    assert "frames in" not in outcome.err


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not bind root; /proc stands in above")
def test_a_folder_without_permission_is_one_error() -> None:
    Path("closed").mkdir(mode=0o555)
    refused(["run", "good.onnx", "--camera", FAST, "--save", "closed/o.mp4"], 1, "Permission denied", "permission")


def test_a_file_where_a_folder_should_be_is_one_error() -> None:
    Path("taken").write_text("a file")
    for words in (
        ["eval", "good.onnx", "--data", "folder:data", "--out", "taken"],
        ["run", "good.onnx", "--camera", FAST, "--masks", "taken"],
        ["run", "good.onnx", "--camera", FAST, "--save", "taken/o.mp4"],
    ):
        refused(words, 1, "taken", ".")


def test_a_folder_where_a_file_should_be_is_one_error() -> None:
    Path("o.mp4").mkdir()
    refused(["run", "good.onnx", "--camera", FAST, "--save", "o.mp4"], 1, r"o\.mp4: Is a directory", "folder")


# other odd words


def test_recipes_that_are_none_are_refused() -> None:
    Path("broken.toml").write_text("steps = = 3")
    Path("odd.toml").write_text("stages = 3")
    refused(["train", "broken.toml"], 2, r"broken\.toml is no TOML", None)  # type: ignore[arg-type]
    refused(["train", "odd.toml"], 2, "stages must be a list", "stages")
    refused(["train", "missing.toml"], 1, r"missing\.toml: No such file", "spelling")


def test_a_size_the_network_cannot_take_names_the_nearest() -> None:
    words = ["train", "source-only", "--source", "folder:data", "--target", "folder:data", "--out", "new"]
    assert_refused(invoke(*words, "--set", "size=65x64"), 2, "65x64", "64x64")
    refused(["export", "good.pth", "--size", "65x64"], 2, "65x64", "64x64")


def test_a_spec_file_that_is_none_is_refused() -> None:
    Path("spec.json").write_text('{"version": 1, "size_hw": [8, 8], "colour": 1}')
    for words in (
        ["run", "good.onnx", "--camera", FAST, "--spec", "spec.json"],
        ["export", "good.pth", "--verify", "verify", "--spec", "spec.json"],
        ["inspect", "spec.json"],
    ):
        refused(words, 1, r"spec\.json has unknown fields: colour", "known: size_hw")
