"""What components of a stage are given in tests: a tiny network, tiny sets, a stage of them, one step's context."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from rtda_training.adapt.context import StageContext, StepContext
from rtda_training.data.address import DataAddress
from rtda_training.labels import CITYSCAPES, ClassList
from rtda_training.loop.hardware import build_fabric
from rtda_training.models import SegmentationNetwork, SegOutput
from rtda_training.models.backbones import Backbone, Channels
from rtda_training.readers import LabelledSet, Pictures, UnlabelledSet

SIZE_HW = (64, 64)


TINY_CHANNELS = (4, 6, 8, 10)


class TinyBackbone(Backbone):
    """Four stages at strides 4, 8, 16 and 32 with a batch norm each, named as a ResNet's."""

    def __init__(self, name: str = "tiny", channels: Channels = TINY_CHANNELS, output_stride: int = 32) -> None:
        super().__init__(name, channels, output_stride)
        inputs = (3, *self.channels[:3])
        self.layer1, self.layer2, self.layer3, self.layer4 = (
            nn.Sequential(nn.Conv2d(i, o, 3, stride, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU())
            for i, o, stride in zip(inputs, self.channels, (4, 2, 2, 2), strict=True)
        )

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        stage1 = self.layer1(image)
        stage2 = self.layer2(stage1)
        stage3 = self.layer3(stage2)
        return stage1, stage2, stage3, self.layer4(stage3)


class TinyNetwork(SegmentationNetwork):
    """The contract of every segmentation network in 2000 parameters: features, coarse logits at 1/8, two aux heads."""

    NAME = "Tiny"
    AUX_WEIGHTS = (0.5, 0.5)
    SIZE_MULTIPLE = 32

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.backbone = TinyBackbone()
        self.head = nn.Conv2d(TINY_CHANNELS[1], num_classes, 1)
        self.aux_heads = nn.ModuleList(nn.Conv2d(c, num_classes, 1) for c in TINY_CHANNELS[2:])

    def forward(self, image: Tensor, aux: bool | None = None) -> SegOutput:
        features = self.backbone(image)
        coarse = self.head(features[1])
        maps = [head(x) for head, x in zip(self.aux_heads, features[2:], strict=True)] if self._wants_aux(aux) else []
        logits, *others = (
            nn.functional.interpolate(x, size=image.shape[2:], mode="bilinear", align_corners=False)
            for x in (coarse, *maps)
        )
        return SegOutput(logits, coarse, tuple(others), features)

    def deploy_view(self) -> Any:
        raise NotImplementedError


class PictureList(Pictures):
    """A data set from arrays: frames uint8 (H, W, 3) BGR, labels uint8 (H, W)."""

    def __init__(self, frames: Sequence[np.ndarray], labels: Sequence[np.ndarray], classes: ClassList) -> None:
        self.frames, self.labels, self.classes = frames, labels, classes

    def __len__(self) -> int:
        return len(self.frames)

    def name(self, index: int) -> str:
        return f"picture {index}"

    def frame(self, index: int) -> np.ndarray:
        return self.frames[index]

    def label(self, index: int) -> np.ndarray:
        return self.labels[index]


def class_names(num_classes: int) -> ClassList:
    """The first Cityscapes classes."""
    return ClassList(CITYSCAPES.names[:num_classes], CITYSCAPES.palette[:num_classes])


def make_pictures(
    count: int,
    num_classes: int = 5,
    size_hw: tuple[int, int] = SIZE_HW,
    seed: int = 0,
    classes: ClassList | None = None,
) -> PictureList:
    """Random pictures of 8x8 blocks; each class has a grey of its own, so that labels can be learned."""
    rng = np.random.default_rng(seed)
    frames, labels = [], []
    for _ in range(count):
        blocks = rng.integers(num_classes, size=(size_hw[0] // 8, size_hw[1] // 8)).astype(np.uint8)
        label = blocks.repeat(8, axis=0).repeat(8, axis=1)
        noise = rng.integers(0, 30, size=(*size_hw, 3))
        frames.append((label[..., None] * (220 // num_classes) + noise).astype(np.uint8))
        labels.append(label)
    return PictureList(frames, labels, classes or class_names(num_classes))


def write_domains(base: Path, num_classes: int, count: int, block: int, *, target_val: bool = False) -> Path:
    """``base/source`` and ``base/target``, each of two splits, 64x64: classes by brightness, the target tinted.

    Labels of the target are written for its val split alone, and only where they are asked for.
    """
    rng = np.random.default_rng(0)
    classes = class_names(num_classes)
    for domain, tint in (("source", 0), ("target", 25)):
        for split in ("train", "val"):
            labelled = domain == "source" or (target_val and split == "val")
            for name in ("images", "labels")[: 1 + labelled]:
                (base / domain / split / name).mkdir(parents=True)
            for index in range(count):
                blocks = rng.integers(0, num_classes, (64 // block, 64 // block))
                label = np.kron(blocks, np.ones((block, block))).astype(np.uint8)
                frame = np.repeat((label * (220 // num_classes) + 20 + tint)[..., None], 3, axis=2).astype(np.uint8)
                cv2.imwrite(str(base / domain / split / "images" / f"{index}.png"), frame)
                if labelled:
                    cv2.imwrite(str(base / domain / split / "labels" / f"{index}.png"), label)
        text = json.dumps({"names": classes.names, "palette": classes.palette})
        (base / domain / "classes.json").write_text(text)
    return base


def make_stage(
    num_classes: int = 5,
    *,
    network: nn.Module | None = None,
    precision: str = "fp32",
    size_hw: tuple[int, int] = SIZE_HW,
    folder: Path = Path("no-such-folder"),
    classes: ClassList | None = None,
    pictures: int = 6,
    seed: int = 0,
    **changes: Any,
) -> StageContext:
    """A stage on the CPU: batches of 2, a ``TinyNetwork`` in training mode (weights by ``seed``), two sets.

    Args:
        num_classes: C; the classes are Cityscapes' first ones.
        network: Instead of the tiny one, such as a ``BiSeNet``.
        precision: ``fp32`` or ``bf16``.
        size_hw: Of pictures and network.
        folder: Parent of the run's folders, ``tmp_path`` where a component writes files.
        classes: Instead of Cityscapes' first ones.
        pictures: In each set.
        seed: Of the weights and the pictures.
        changes: Any other field of ``StageContext``.
    """
    torch.manual_seed(seed)
    classes = classes or class_names(num_classes)
    source = make_pictures(pictures, num_classes, size_hw, seed, classes)
    target = make_pictures(pictures, num_classes, size_hw, seed + 1, classes)
    fields: dict[str, Any] = {
        "num_classes": num_classes,
        "fabric": build_fabric("cpu", precision),
        "network": (network or TinyNetwork(num_classes)).train(),
        "size_hw": size_hw,
        "batch_size": 2,
        "first_place": 0,
        "seed": (seed, 0),
        "steps": 10,
        "folder": folder / "stages" / "train",
        "run_folder": folder,
        "normalise": to_input,
        "finished": _nothing_finished,
        "classes": classes,
        "source": LabelledSet(source, DataAddress.parse("list:source")),
        "target": UnlabelledSet(target, DataAddress.parse("list:target")),
        "tell": lambda text: None,
    }
    return StageContext(**{**fields, **changes})


def make_context(stage: StageContext, step: int = 0, **changes: Any) -> StepContext:
    """The step's first ``batch_size`` pictures of both sets (labels of the source only); ``changes`` are its fields."""
    source, target = stage.source, stage.target
    places = range(stage.batch_size)
    fields: dict[str, Any] = {
        "step": step,
        "source_frames": _stack([source.frame(i) for i in places]).float(),
        "label": _stack([source.label(i) for i in places]).long(),
        "target_frames": None if target is None else _stack([target.frame(i) for i in places]).float(),
        "forward": stage.network,
        "normalise": stage.normalise,
        "seed": stage.seed,
        "first_place": stage.first_place,
    }
    return StepContext(**{**fields, **changes})


def with_fields(stage: StageContext, **changes: Any) -> StageContext:
    """The same stage but for these fields."""
    return dataclasses.replace(stage, **changes)


def to_input(frames: Tensor) -> Tensor:
    """Raw pixels (N, H, W, 3) as the network's input (N, 3, H, W), about -1..1."""
    return frames.permute(0, 3, 1, 2).float().contiguous() / 127.5 - 1.0


def _stack(arrays: Sequence[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(arrays))


def _nothing_finished(name: str) -> nn.Module:
    raise AssertionError(f"no stage {name} in this test")
