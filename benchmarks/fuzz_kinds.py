"""What is fuzzed: for each kind of file or address, good ones to begin with, how they are broken, how they are read."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import pickle
import random
import tarfile
from pathlib import Path
from typing import Any, Callable, Dict, List, Sequence, Tuple

import numpy as np
from fuzz_mutations import mutated_address, mutated_bytes, mutated_json, mutated_text, mutated_values

from rtda_deploy.errors import RtdaError
from rtda_deploy.spec import ModelSpec

__all__ = ["KINDS", "MARKER", "Kind"]

MARKER = "code-ran"  # a file that code in a checkpoint would make

Mutate = Callable[[random.Random, bytes, Sequence[bytes]], bytes]
_SIZE = (48, 64)


@dataclasses.dataclass(frozen=True)
class Kind:
    """One kind of input.

    Attributes:
        weight: Its share of all mutations, relative to the others'.
        name: What the broken file is called; empty: the input is a text that is typed.
        good: Makes the good ones, in a folder that stays.
        mutate: Breaks one.
        read: Reads it as the product does: the file, or the text; whatever it raises is looked at.
    """

    weight: int
    name: str
    good: Callable[[Path], List[bytes]]
    mutate: Mutate
    read: Callable[[Any], None]


def _picture(seed: int = 0, size: Tuple[int, int] = _SIZE) -> np.ndarray:
    import cv2

    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return np.asarray(cv2.resize(coarse, size[::-1]))


def _encoded(image: np.ndarray, suffix: str, *options: int) -> bytes:
    import cv2

    done, content = cv2.imencode(suffix, image, list(options))
    assert done, suffix
    return bytes(content.tobytes())


def _each(*reads: Callable[[], Any]) -> None:
    """Run all of them, also after one that refused; the last refusal is raised, any other error at once."""
    refused = None
    for read in reads:
        try:
            read()
        except RtdaError as err:
            refused = err
    if refused is not None:
        raise refused


def _pictures(folder: Path) -> List[bytes]:
    image = _picture()
    return [_encoded(image, suffix) for suffix in (".png", ".jpg", ".webp", ".bmp", ".tiff", ".ppm")]


def _read_picture(path: Path) -> None:
    from rtda_training.data.labels.files import read_frame

    _each(lambda: read_frame(path), lambda: _read_source(path, 1))


def _read_source(address: Any, frames: int) -> None:
    from rtda_runtime import open_source

    with open_source(address) as source:
        for _ in range(frames):
            if source.read() is None:
                return


def _labels(folder: Path) -> List[bytes]:
    import cv2

    ids = np.random.default_rng(1).integers(0, 5, _SIZE, np.uint8)
    rgb = np.dstack([ids, ids, ids])
    bits = _encoded((ids > 2).astype(np.uint8) * 255, ".png", cv2.IMWRITE_PNG_BILEVEL, 1)
    return [_encoded(ids, ".png"), _encoded(rgb, ".png"), _encoded(ids.astype(np.uint16) * 300, ".png"), bits]


def _read_label(path: Path) -> None:
    from rtda_training.data.labels.files import mask_size, read_mask

    _each(lambda: read_mask(path), lambda: mask_size(path), lambda: read_mask(path))


def _spec(**changes: Any) -> ModelSpec:
    names, palette = ("road", "sky", "car"), ((128, 64, 128), (70, 130, 180), (0, 0, 142))
    architecture = {"name": "BiSeNet", "backbone": "resnet18", "variant": "rtda"}
    made = ModelSpec((32, 64), names, palette, provenance={"architecture": architecture, "metrics": {"miou": 0.5}})
    return made.replace(**changes)


class _Trap:
    def __reduce__(self) -> Tuple[Callable[[str], int], Tuple[str]]:
        return os.system, (f"touch {MARKER}",)


def _checkpoint_values() -> Dict[str, Any]:
    import torch

    weights = {f"head.{index}": torch.ones(2, index + 1) for index in range(4)}
    training = {"stage_index": 0, "step": 3, "done": False}
    return {"format": "rtda-deploy", "spec": _spec().to_json(), "weights": weights, "training": training}


def _saved(content: Any, **options: Any) -> bytes:
    import torch

    stream = io.BytesIO()
    torch.save(content, stream, **options)
    return stream.getvalue()


def _checkpoints(folder: Path) -> List[bytes]:
    import torch

    own = _checkpoint_values()
    weights = {"module.conv.weight": torch.ones(3, 3, 1, 1), "module.supervision1.weight": torch.ones(3)}
    foreign = {"state_dict": weights}
    scalars = {**foreign, "miou": np.float64(0.5)}
    evil = {**own, "training": _Trap()}
    old = _saved(own, _use_new_zipfile_serialization=False)
    return [_saved(own), old, _saved(foreign), _saved(scalars), _saved(evil), pickle.dumps(evil)]


def _broken_checkpoint(rng: random.Random, content: bytes, others: Sequence[bytes]) -> bytes:
    if rng.random() < 0.5:
        return mutated_bytes(rng, content, others)
    values = _checkpoint_values()
    if rng.random() < 0.3:
        values = {rng.choice(("state_dict", "model", "ema", "params")): values["weights"]}
    return _saved(mutated_values(rng, values, _odd_weight))


def _odd_weight(rng: random.Random) -> Any:
    import torch

    ones = torch.ones(2, 2)
    holds_itself: Dict[str, Any] = {}
    holds_itself["state_dict"] = holds_itself
    plain = (None, 3, "x", 1.5, {}, [], b"\xff", float("nan"), 10**400, np.float32(1), _spec().to_json()[:40])
    nested = ({1: ones}, {"a": {"b": ones}}, holds_itself)
    kinds = (ones * float("nan"), ones.to(torch.complex64), ones.to_sparse(), ones.to("meta"), ones.bool(), ones.half())
    sizes = (torch.ones(0), torch.ones(()), torch.ones(1).expand(10**6, 10**6))
    return rng.choice((*plain, *nested, *kinds, *sizes))


def _read_checkpoint(path: Path) -> None:
    from rtda_deploy.cli.inspect import describe_file
    from rtda_training.models import read_weights

    _each(lambda: read_weights(path), lambda: describe_file(path))


def _onnx_with(text: str) -> Any:
    from onnx import TensorProto, helper, numpy_helper

    weight = numpy_helper.from_array(np.ones((3, 3, 8, 8), np.float32), "w")
    node = helper.make_node("Conv", ["x", "w"], ["y"], strides=[8, 8])
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 32, 64])
    made = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3, 4, 8])
    graph = helper.make_graph([node], "g", [given], [made], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    helper.set_model_props(model, {"rtda.spec": text, "rtda.precision": json.dumps({"precision": "fp32"})})
    return model


def _onnx_files(folder: Path) -> List[bytes]:
    return [bytes(_onnx_with(_spec().to_json()).SerializeToString())]


def _read_onnx(path: Path) -> None:
    from rtda_deploy.cli.inspect import describe_file
    from rtda_export.graph.from_torch import read_onnx
    from rtda_runtime import Segmenter

    def run() -> None:
        with Segmenter.open(path, "cpu", threads=1) as segmenter:
            segmenter.segment(np.zeros((32, 64, 3), np.uint8))

    _each(lambda: describe_file(path), lambda: read_onnx(path), run)


def _specs(folder: Path) -> List[bytes]:
    return [_spec().to_json().encode(), _spec(output="mask", output_stride=1).to_json().encode()]


def _read_spec(path: Path) -> None:
    """As a ``spec.json``, and as metadata of an ``.onnx`` where it is text."""
    text = path.read_bytes().decode("utf-8", "replace")
    onnx = path.with_suffix(".onnx")
    onnx.write_bytes(_onnx_with(text).SerializeToString())
    _each(lambda: ModelSpec.load(path), lambda: _read_onnx(onnx))


def _sidecars(folder: Path) -> List[bytes]:
    import hashlib

    from rtda_deploy.engine_file import EngineBuild, EngineSidecar

    engine = b"an engine"
    built = EngineBuild("a.onnx", "0" * 64, "fp16", "8.5.2.2", "Xavier", (7, 2), (32, 64))
    return [EngineSidecar(_spec(), built, hashlib.sha256(engine).hexdigest(), len(engine)).to_json().encode()]


def _read_sidecar(path: Path) -> None:
    from rtda_deploy.cli.inspect import describe_file
    from rtda_deploy.engine_file import Machine, check_whole, mismatch, read_sidecar, rebuild_command

    engine = path.with_name("m.engine")
    engine.write_bytes(b"an engine")
    sidecar = read_sidecar(engine)
    mismatch(sidecar, Machine("8.5.2.2", "Xavier", (7, 2)))
    rebuild_command(sidecar, engine)
    describe_file(path)
    check_whole(engine, sidecar)


def _recipes(folder: Path) -> List[bytes]:
    from rtda_training.plan import load_plan, recipe_names
    from rtda_training.toml_file import toml_text

    plans = [load_plan(name, source=_source_of(name), target="toytown:target") for name in recipe_names()[::4]]
    grid = b'name = "g"\nsource = "toytown:source"\ntarget = "toytown:target"\nseeds = [0]\n[[rows]]\nlabel = "a"\n'
    return [*(toml_text(plan.to_dict()).encode() for plan in plans), grid + b'recipe = "source-only"\n']


def _source_of(recipe: str) -> str:
    return "" if recipe == "adapt" else "toytown:source"  # the one that has no source pictures


def _read_toml(path: Path) -> None:
    from rtda_training.grids.grid import is_grid, load_grid
    from rtda_training.plan import load_plan
    from rtda_training.toml_file import toml_text

    if is_grid(str(path)):
        load_grid(str(path))
        return
    plan = load_plan(str(path))
    again = path.with_name("again.toml")
    again.write_text(toml_text(plan.to_dict()), encoding="utf-8")
    assert load_plan(str(again)) == plan, "what is written into config.toml is another plan"


def _settings(folder: Path) -> List[bytes]:
    texts = ("steps=500", "optimizer.learning_rate=1e-3", "size=64x64", "max_corrupt=0.01", 'objectives=["supervised"]')
    return [text.encode() for text in texts]


def _type_setting(text: str) -> None:
    from rtda_training.plan import load_plan

    load_plan("source-only", [text], source="toytown:source", target="toytown:target")


def _classes_files(folder: Path) -> List[bytes]:
    names, palette = ["road", "sky"], [[128, 64, 128], [70, 130, 180]]
    tables = (
        {"names": names, "palette": palette},
        {"ids": {"7": "road", "23": "sky"}, "ignore": [0, 1]},
        {"colors": {"128,64,128": "road", "70,130,180": "sky"}, "ignore": ["0,0,0"]},
        {"colors": [[[128, 64, 128], "road"], [[70, 130, 180], "sky"]]},
    )
    return [json.dumps(table).encode() for table in tables]


def _read_classes(path: Path) -> None:
    from rtda_training.data.labels.classes_file import ClassesFile

    found = ClassesFile.load(path.parent)
    with contextlib.suppress(Exception):
        json.dumps(found.classes.names).encode()
    found.classes.palette[0]


def _results(folder: Path) -> List[bytes]:
    times = [float(value) for value in np.random.default_rng(0).normal(10, 1, 100)]
    with tarfile.open(Path(__file__).parents[1] / "tests/earlier/version-before-rooms.tar.xz") as archive:
        member = archive.extractfile("bench-A.json")
        assert member is not None
        record = json.loads(member.read())
    record["samples"] = {"at_s": list(np.cumsum(times) / 1e3), "total": times, "infer": times}
    return [json.dumps(record).encode()]


def _read_result(path: Path) -> None:
    from rtda_deploy.cli.bench.show import compare_files

    good = path.with_name("good.json")
    good.write_bytes(_results(path.parent)[0])
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        for pair in ((good, path), (path, good)):
            compare_files(*pair, force=True, as_json=True, as_csv=False)


def _data_set(folder: Path) -> Path:
    place = folder / "set"
    if not place.exists():
        for name in ("images", "labels"):
            (place / name).mkdir(parents=True)
        for index in range(2):
            (place / f"images/{index}.png").write_bytes(_encoded(_picture(index), ".png"))
            (place / f"labels/{index}.png").write_bytes(_encoded(np.zeros(_SIZE, np.uint8), ".png"))
        (place / "list.txt").write_text("images/0.png labels/0.png\n")
    return place


def _data_addresses(folder: Path) -> List[bytes]:
    place = _data_set(folder)
    options = ("", "?split=all", "?list=list.txt", "?classes=camvid", "?label_suffix=_L", f"?pictures={place}/images")
    kinds = ("cityscapes", "camvid", "gta5", "synthia", "carla", "idda")
    return [f"folder:{place}{text}".encode() for text in options] + [f"{kind}:{place}".encode() for kind in kinds]


def _open_data(text: str) -> None:
    from rtda_training.readers import open_labelled, open_unlabelled

    _each(lambda: open_unlabelled(text).frame(0), lambda: open_labelled(text).frame(0))


def _source_addresses(folder: Path) -> List[bytes]:
    place = _data_set(folder)
    (folder / "clip.mp4").write_bytes(_film(folder, 3))
    bars = ("test://bars?fps=0&frames=2&size=64x48", "test://bars?fps=30", "test://bars")
    files = (f"{place}/images", f"{place}/images/%d.png", f"{folder}/clip.mp4", f"file://{folder}/clip.mp4")
    return [text.encode() for text in (*bars, *files, "csi://0", "/dev/video63", "63", "v4l2:///dev/video63")]


def _open_source(text: str) -> None:
    if text.strip().split("://")[0].lower() in ("http", "https", "rtsp", "rtmp", "udp", "tcp", "srt", "rtp", "gst"):
        return  # the network is left alone
    _read_source(text, 1)


def _film(folder: Path, frames: int) -> bytes:
    import av

    path = folder / f"made-{frames}.mp4"
    if not path.exists():
        with av.open(str(path), "w") as container:
            stream: Any = container.add_stream("mpeg4", rate=25)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            for index in range(frames):
                frame = av.VideoFrame.from_ndarray(_picture(index), format="bgr24")
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    return path.read_bytes()


def _films(folder: Path) -> List[bytes]:
    return [_film(folder, 3), _film(folder, 9)]


def _jpeg_streams(folder: Path) -> List[bytes]:
    pictures = [_encoded(_picture(index), ".jpg") for index in range(3)]
    head = b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n"
    parts = b"".join(head % len(picture) + picture + b"\r\n" for picture in pictures)
    return [parts, b"".join(pictures), b"preamble\r\n" + parts]


KINDS: Dict[str, Kind] = {
    "picture": Kind(20, "p.png", _pictures, mutated_bytes, _read_picture),
    "label": Kind(15, "l.png", _labels, mutated_bytes, _read_label),
    "checkpoint": Kind(15, "c.pth", _checkpoints, _broken_checkpoint, _read_checkpoint),
    "onnx": Kind(15, "m.onnx", _onnx_files, mutated_bytes, _read_onnx),
    "metadata": Kind(15, "spec.json", _specs, mutated_json, _read_spec),
    "engine json": Kind(15, "m.engine.json", _sidecars, mutated_json, _read_sidecar),
    "toml": Kind(15, "r.toml", _recipes, mutated_text, _read_toml),
    "setting": Kind(10, "", _settings, mutated_address, _type_setting),
    "classes.json": Kind(20, "classes.json", _classes_files, mutated_json, _read_classes),
    "bench json": Kind(10, "times.json", _results, mutated_json, _read_result),
    "data address": Kind(15, "", _data_addresses, mutated_address, _open_data),
    "source address": Kind(15, "", _source_addresses, mutated_address, _open_source),
    "mjpeg": Kind(10, "s.mjpeg", _jpeg_streams, mutated_bytes, lambda path: _read_source(path, 12)),
    "video": Kind(10, "v.mp4", _films, mutated_bytes, lambda path: _read_source(path, 12)),
}
