"""The files that the checks on a GPU need, made on a machine with torch, onnx, ONNX Runtime and OpenCV; no GPU.

    PYTHONPATH=tests python -m gpu.prepare --out FILES [--checkpoint best.pth]

ONNX files of a BiSeNet-R18 (fp32, typed fp16, int8) for each size, ToyTown's pictures, and the logits that ONNX Runtime
computes from them in float32; ``manifest.json`` last.
"""

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

import cv2
import numpy as np
import torch
from gpu.phases import answer, prepared
from gpu.run import FORMAT

from rtda_deploy.files import writable_folder, write_bytes, write_text
from rtda_deploy.sizes import parse_size
from rtda_deploy.spec import ModelSpec
from rtda_export.export import export_model
from rtda_export.graph.from_torch import onnx_from_checkpoint, read_onnx
from rtda_export.precision.fp16_graph import fp16_onnx
from rtda_export.precision.quantize import int8_onnx
from rtda_runtime.engines import open_engine
from rtda_training.checkpoint import Checkpoint, write_checkpoint
from rtda_training.data import toytown
from rtda_training.labels import CITYSCAPES
from rtda_training.models import BiSeNet

SIZES = "1024x512,2048x1024"  # width x height; the first is what a Xavier is asked to do
_SEED = 20261121  # of the random network


def main(arguments: Optional[Sequence[str]] = None) -> None:
    """Write the files of each size, and ``manifest.json`` last."""
    parser = argparse.ArgumentParser(prog="gpu.prepare", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--checkpoint", type=Path, help="a BiSeNet-R18 (default: random weights, whose masks are noise)"
    )
    parser.add_argument("--sizes", default=SIZES, help=f"width x height (default: {SIZES})")
    parser.add_argument("--precisions", default="fp16,int8", help="beside fp32 (default: fp16,int8)")
    parser.add_argument("--pictures", type=int, default=4)
    options = parser.parse_args(arguments)
    out = writable_folder(options.out)
    checkpoint = options.checkpoint or _random_checkpoint(out / "random.pth")
    sizes: List[Dict[str, Any]] = []
    for text in options.sizes.split(","):
        height, width = parse_size(text)
        name = f"r18-{text}"
        pictures = _pictures(out / f"{name}-pictures", options.pictures, (height, width))
        onnx = {"fp32": f"{name}.onnx"}
        plain = onnx_from_checkpoint(checkpoint, out / onnx["fp32"], size_hw=(height, width))
        with open_engine(plain, "cpu") as engine:
            frames = [_read_picture(path, engine.spec) for path in sorted(pictures.glob("*.png"))]
            logits = np.stack([answer(engine, frame) for frame in frames])
            images = [prepared(frame, engine.spec) for frame in frames]
        for precision in filter(None, options.precisions.split(",")):
            onnx[precision] = f"{name}.{precision}.onnx"
            if options.checkpoint:  # what loses too much stays in float, as rtda-deploy export makes it
                calibrate = pictures if precision == "int8" else None
                settings: Dict[str, Any] = {"verify_path": pictures, "calibrate": calibrate, "force": True}
                export_model(plain, to=("onnx",), precision=precision, out_dir=out, name=plain.stem, **settings)
            elif precision == "fp16":  # all of it: what random masks agree to says nothing of what should stay
                write_bytes(out / onnx["fp16"], fp16_onnx(read_onnx(plain)).SerializeToString(deterministic=True))
            else:
                int8_onnx(plain, images, out / onnx["int8"], limit=1e-6, method="minmax", check=images[:1])
        buffer = io.BytesIO()
        np.savez_compressed(buffer, frames=np.stack(frames), logits=logits)
        write_bytes(out / f"{name}.npz", buffer.getvalue())
        for file in (*onnx.values(), f"{name}.npz"):
            print(f"{file:<32} {(out / file).stat().st_size / 2**20:6.1f} MiB", flush=True)
        sizes.append({"name": name, "onnx": onnx, "frames": f"{name}.npz"})
    manifest = {"format": FORMAT, "checkpoint": checkpoint.name, "trained": bool(options.checkpoint), "sizes": sizes}
    write_text(out / "manifest.json", json.dumps(manifest, indent=2) + "\n")


def _random_checkpoint(path: Path) -> Path:
    torch.manual_seed(_SEED)
    model = BiSeNet("resnet18", "rtda", CITYSCAPES.num_classes).eval()
    facts = {"architecture": {"name": "BiSeNet", "backbone": "resnet18", "variant": "rtda"}}
    spec = ModelSpec((512, 1024), CITYSCAPES.names, CITYSCAPES.palette, provenance=facts)
    return write_checkpoint(path, Checkpoint(spec, model.state_dict()))


def _pictures(folder: Path, count: int, size_hw: Tuple[int, int]) -> Path:
    """ToyTown's target at the network's size, as PNG: what calibration and verification read too."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        frame, _ = toytown.render("target", "test", index, size_hw)
        _, png = cv2.imencode(".png", frame)
        write_bytes(folder / f"{index}.png", png.tobytes())
    return folder


def _read_picture(path: Path, spec: ModelSpec) -> np.ndarray:
    """uint8 (H, W, 3) in the network's channel order."""
    frame = cv2.imread(str(path), cv2.IMREAD_COLOR)
    return np.ascontiguousarray(frame[..., ::-1] if spec.channel_order == "rgb" else frame)


if __name__ == "__main__":
    main()
