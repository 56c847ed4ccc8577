"""What is measured: networks, sizes and precisions, and the file that each is made from."""

from __future__ import annotations

from pathlib import Path
from typing import List, NamedTuple, Sequence, Tuple

from rtda_deploy.errors import ConfigError, FileAccessError

NETWORKS = {"r18": "resnet18", "r101": "resnet101"}  # BiSeNet of RTDA's lineage, by its backbone
SIZES_WH = ((512, 256), (1024, 512), (2048, 1024))
PRECISIONS = ("fp32", "fp16", "int8")


class Case(NamedTuple):
    """One network at one size and precision."""

    network: str
    size_wh: Tuple[int, int]
    precision: str

    @property
    def name(self) -> str:
        """``r18 1024x512 fp16``."""
        return f"{self.network} {size_text(self.size_wh)} {self.precision}"

    @property
    def stem(self) -> str:
        """Of file names: ``bisenet-r18-1024x512``."""
        return model_stem(self.network, self.size_wh)

    def source(self, folder: Path, provider: str) -> Path:
        """The ``.onnx`` that it is made from.

        INT8 has a file of its own, with its scales. FP16 has one too, where no TensorRT makes it from the float32 file.

        Raises:
            FileAccessError: If it is not there.
        """
        own = self.precision == "int8" or (self.precision == "fp16" and provider != "tensorrt")
        path = folder / (f"{self.stem}.{self.precision}.onnx" if own else f"{self.stem}.onnx")
        if not path.is_file():
            raise FileAccessError(
                f"{path} is not there",
                hint=f"on the desktop: python3 benchmarks/jetson prepare --out {folder}; then copy the folder here",
            )
        return path


def cases(networks: str, sizes: str, precisions: str) -> List[Case]:
    """The cases of three comma lists, small and fast ones first, so that an interrupted run has something to show.

    Raises:
        ConfigError: If one of them names something unknown.
    """
    chosen_precisions = _chosen(precisions, PRECISIONS, "precision")
    # fp16 first: it is what a robot runs
    order = sorted(chosen_precisions, key=("fp16", "int8", "fp32").index)
    return [
        Case(network, size_wh, precision)
        for network in _chosen(networks, list(NETWORKS), "network")
        for size_wh in _sizes(sizes)
        for precision in order
    ]


def parse_size_wh(text: str) -> Tuple[int, int]:
    """Width and height of ``1024x512``.

    Raises:
        ConfigError: If it is no such text.
    """
    width, _, height = text.lower().partition("x")
    if not (width.isdigit() and height.isdigit() and int(width) and int(height)):
        raise ConfigError(f"size {text!r} is no WIDTHxHEIGHT", hint="such as 1024x512")
    return int(width), int(height)


def _sizes(text: str) -> List[Tuple[int, int]]:
    words = _words(text)
    if not words:
        raise ConfigError("no size to measure", hint="such as --sizes 512x256,1024x512")
    return sorted({parse_size_wh(word) for word in words})


def size_text(size_wh: Sequence[int]) -> str:
    """``1024x512``."""
    return f"{size_wh[0]}x{size_wh[1]}"


def model_stem(network: str, size_wh: Sequence[int]) -> str:
    """Of the ``.onnx`` that ``prepare`` writes."""
    return f"bisenet-{network}-{size_text(size_wh)}"


def _chosen(text: str, known: Sequence[str], what: str) -> List[str]:
    words = _words(text)
    unknown = [word for word in words if word not in known]
    if unknown or not words:
        raise ConfigError(f"unknown {what} {', '.join(unknown) or '(nothing)'}", hint=f"known: {', '.join(known)}")
    return [name for name in known if name in words]


def _words(text: str) -> List[str]:
    return [word.strip() for word in text.split(",") if word.strip()]
