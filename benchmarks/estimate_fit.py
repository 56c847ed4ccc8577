"""What `rtda-deploy estimate` is worth: its two constants, fitted to published speeds and tried on those left out.

    python benchmarks/estimate_fit.py            # figures, errors, constants, estimates for the Xaviers
    python benchmarks/estimate_fit.py --write    # the same as docs/results/estimate.md, with the picture

Five published speeds determine the shares of peak and bandwidth that engines reach; each is then predicted by a fit on
the other four. Nothing is fitted to a device. Speeds that the fit never sees follow, other precisions and sizes. Ends
with 1 where devices.toml holds other constants than the fit gives.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import io
import math
import sys
import warnings
from pathlib import Path
from typing import Any, Iterator, List, NamedTuple, Sequence, Tuple

import onnx
import torch
from torch import Tensor, nn

from rtda_deploy.files import write_text
from rtda_deploy.sizes import parse_size
from rtda_export.precision import PRECISIONS
from rtda_export.roofline.devices import Achieved, achieved, device_named, known_devices
from rtda_export.roofline.estimator import Estimate, PrecisionEstimate, estimate_layers
from rtda_export.roofline.layers import Layer, fused_layers
from rtda_export.roofline.picture import save_picture
from rtda_training.models import BiSeNet, build_backbone, build_network

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "results" / "estimate.md"
PICTURE = PAGE.with_name("estimate.png")
FLOOR_US = 10.0  # not fitted: five speeds of large pictures say little about it; --write prints what others would give
_GOAL = 1.5


class Figure(NamedTuple):
    """A published speed: of the network alone, batch 1."""

    network: str
    size: str  # WIDTHxHEIGHT
    device: str
    precision: str
    fps: float
    source: str

    @property
    def text(self) -> str:
        return f"{self.network} {self.size} {self.precision} on {device_named(self.device).title}"


_COINCHEUNG = "CoinCheung/BiSeNet, README"
_DUSTY = "dusty-nv/jetson-inference, README (JetPack 4.2.1, MAXN)"
FITTED = (
    Figure("BiSeNetV1", "2048x1024", "t4", "fp16", 78, f"{_COINCHEUNG} (TensorRT 8.2)"),
    Figure("BiSeNetV1", "2048x1024", "v100", "fp16", 186, f"{_COINCHEUNG} (TensorRT 8.2)"),
    Figure("BiSeNetV1", "2048x1024", "a40", "fp16", 239, f"{_COINCHEUNG} (TensorRT 10.3)"),
    Figure("FCN-ResNet18", "1024x512", "xavier-agx", "fp16", 175, _DUSTY),
    Figure("FCN-ResNet18", "2048x1024", "xavier-agx", "fp16", 47, _DUSTY),
)
FURTHER = (
    Figure("BiSeNetV1", "2048x1024", "t4", "fp32", 25, f"{_COINCHEUNG} (TensorRT 8.2)"),
    Figure("BiSeNetV1", "2048x1024", "a40", "fp32", 112, f"{_COINCHEUNG} (TensorRT 10.3)"),
    Figure("BiSeNetV1", "2048x1024", "t4", "int8", 141, f"{_COINCHEUNG} (TensorRT 8.2)"),
    Figure("BiSeNetV1", "2048x1024", "v100", "int8", 187, f"{_COINCHEUNG} (TensorRT 8.2)"),
    Figure("BiSeNetV1", "2048x1024", "a40", "int8", 435, f"{_COINCHEUNG} (TensorRT 10.3)"),
    *(
        Figure("FCN-ResNet18", size, "xavier-agx", "fp16", fps, _DUSTY)
        for size, fps in (
            ("864x480", 190),
            ("640x512", 224),
            ("640x360", 325),
            ("512x400", 340),
            ("576x320", 360),
            ("512x320", 372),  # published twice, 370 and 375
            ("512x256", 480),
            ("320x320", 508),
        )
    ),
)


_GCNET = "GCNet, README (PyTorch, one program for all)"
EAGER = (
    Figure("BiSeNetV1", "2048x1024", "a100", "fp32", 117, _GCNET),
    Figure("DDRNet-23-slim", "2048x1024", "a100", "fp32", 166, _GCNET),
    Figure("GCNet-S", "2048x1024", "a100", "fp32", 193, _GCNET),
)


class FullSize(nn.Module):
    """Coarse logits enlarged eight times, as the published BiSeNetV1 engine gives them."""

    def __init__(self, view: nn.Module) -> None:
        super().__init__()
        self.view = view

    def forward(self, image: Tensor) -> Tensor:
        return nn.functional.interpolate(self.view(image), scale_factor=8.0, mode="bilinear", align_corners=False)


class FcnResNet18(nn.Module):
    """ResNet-18 of stride 32 and torchvision's FCN head, its coarse grid not enlarged, as jetson-inference runs it."""

    def __init__(self, num_classes: int = 21) -> None:
        super().__init__()
        self.backbone = build_backbone("resnet18")
        self.head = nn.Sequential(
            nn.Conv2d(512, 128, 3, padding=1, bias=False),
            nn.BatchNorm2d(128),
            nn.ReLU(),
            nn.Conv2d(128, num_classes, 1),
        )

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.head(self.backbone(image)[3])
        return logits


_NETWORKS = {
    "BiSeNetV1": lambda: FullSize(BiSeNet("resnet18", "paper").deploy_view()),
    "FCN-ResNet18": FcnResNet18,
    "DDRNet-23-slim": lambda: FullSize(build_network("ddrnet").deploy_view()),
    "GCNet-S": lambda: FullSize(build_network("gcnet", variant="s").deploy_view()),
    "BiSeNet R18": lambda: BiSeNet("resnet18", "rtda").deploy_view(),
    "BiSeNet R101": lambda: BiSeNet("resnet101", "rtda").deploy_view(),
}


# Their pyramids enlarge to sizes that are numbers in the graph: they are traced at the size that is asked for.
_OF_ONE_SIZE = ("DDRNet-23-slim", "GCNet-S")


@functools.lru_cache(maxsize=None)
def graph_of(network: str, size_hw: Tuple[int, int] = (64, 64)) -> Any:
    """A network as ONNX; traced at 64x64 where everything in it scales."""
    buffer = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the tracer's
        torch.onnx.export(
            _NETWORKS[network]().eval(),
            (torch.zeros(1, 3, *size_hw),),
            buffer,
            opset_version=17,
            input_names=["image"],
            output_names=["logits"],
            dynamo=False,
        )
    return onnx.load_from_string(buffer.getvalue())


@functools.lru_cache(maxsize=None)
def layers_of(network: str, size: str) -> Tuple[Layer, ...]:
    """The layers of a network at WIDTHxHEIGHT."""
    height, width = parse_size(size)
    if network in _OF_ONE_SIZE:
        return fused_layers(graph_of(network, (height, width)))
    model = onnx.ModelProto()
    model.CopyFrom(graph_of(network))
    sides = model.graph.input[0].type.tensor_type.shape.dim
    sides[2].dim_value, sides[3].dim_value = height, width
    del model.graph.value_info[:]  # of the traced size, as is the output's shape
    model.graph.output[0].type.tensor_type.ClearField("shape")
    return fused_layers(model)


def ratio(figure: Figure, shares: Achieved) -> float:
    """Estimated by published speed."""
    layers = layers_of(figure.network, figure.size)
    found = estimate_layers(layers, device_named(figure.device), figure.precision, shares)
    return found.expected_fps / figure.fps


@functools.lru_cache(maxsize=None)
def fitted(figures: Tuple[Figure, ...], floor_us: float = FLOOR_US) -> Achieved:
    """The shares with the least sum of squared logarithms of ``ratio``, rounded to three digits.

    A pattern search from four starts: the step is halved where no neighbour is better.
    """

    def loss(point: Tuple[float, float]) -> float:
        shares = Achieved(math.exp(point[0]), math.exp(point[1]), floor_us, 1.0, "")
        return sum(math.log(ratio(figure, shares)) ** 2 for figure in figures)

    best = min(
        (
            _descended(loss, (math.log(compute), math.log(bandwidth)))
            for compute in (0.5, 0.8)
            for bandwidth in (0.3, 0.6)
        ),
        key=loss,
    )
    return Achieved(round(math.exp(best[0]), 3), round(math.exp(best[1]), 3), floor_us, 1.0, "")


def _descended(loss: Any, point: Tuple[float, float]) -> Tuple[float, float]:
    step, least = 0.2, loss(point)
    while step > 5e-4:
        around = [(point[0] + a * step, point[1] + b * step) for a in (-1, 0, 1) for b in (-1, 0, 1) if a or b]
        value, near = min((loss(other), other) for other in around if max(other) <= 0.0)  # no share above 1
        if value < least:
            least, point = value, near
        else:
            step /= 2
    return point


def left_out(floor_us: float = FLOOR_US) -> List[Tuple[Figure, Achieved, float]]:
    """Each fitted figure, the shares fitted to the other four, and its ratio by them."""
    found = []
    for figure in FITTED:
        shares = fitted(tuple(other for other in FITTED if other is not figure), floor_us)
        found.append((figure, shares, ratio(figure, shares)))
    return found


def constants() -> Achieved:
    """What devices.toml must hold: the shares fitted to all five, and the largest miss of any figure, rounded up."""
    shares = fitted(FITTED)
    misses = [miss(value) for _, _, value in left_out()] + [miss(ratio(figure, shares)) for figure in FURTHER]
    return dataclasses.replace(shares, error_factor=math.ceil(round(max(misses), 4) * 20) / 20)


def miss(value: float) -> float:
    """A ratio as a factor of at least 1."""
    return max(value, 1.0 / value)


def estimated(network: str, size: str, device: str, precision: str, shares: Achieved) -> PrecisionEstimate:
    """A network of this file on a device."""
    return estimate_layers(layers_of(network, size), device_named(device), precision, shares)


def table(headers: Sequence[str], rows: Sequence[Sequence[Any]]) -> List[str]:
    """Lines of a Markdown table."""
    return [
        f"| {' | '.join(headers)} |",
        f"|{'---|' * len(headers)}",
        *(f"| {' | '.join(map(str, row))} |" for row in rows),
        "",
    ]


def fit_lines(shares: Achieved) -> Iterator[str]:
    """Every fitted figure with the error it has when it is left out, and the constants."""
    found = left_out()
    yield "## Five published speeds, each predicted from the other four"
    yield ""
    yield from table(
        ("network alone, batch 1", "published FPS", "left out: predicted", "factor", "compute, bandwidth", "source"),
        [
            (
                figure.text,
                f"{figure.fps:g}",
                f"{figure.fps * value:.0f}",
                f"{value:.2f}",
                f"{others.compute:.3f}, {others.bandwidth:.3f}",
                figure.source,
            )
            for figure, others, value in found
        ],
    )
    missed = [figure.text for figure, _, value in found if miss(value) > _GOAL]
    worst = max(miss(value) for _, _, value in found)
    yield f"Largest error: a factor {worst:.2f}. " + (
        f"Not within {_GOAL:g}: {'; '.join(missed)}." if missed else f"Each is within the goal of {_GOAL:g}."
    )
    yield ""
    yield (
        "Fitted to all five, used by `rtda-deploy estimate` "
        "(`[achieved]` in `export/rtda_export/roofline/devices.toml`):"
    )
    yield ""
    yield "```"
    yield f"compute = {shares.compute:.3f}        # share of the published peak"
    yield f"bandwidth = {shares.bandwidth:.3f}      # share of the published bandwidth"
    yield f"floor_us = {shares.floor_us:.1f}        # of each layer; set, not fitted"
    yield f"error_factor = {shares.error_factor:g}     # the largest miss on this page, rounded up to a twentieth"
    yield "```"
    yield ""


def _beside_published(rows: Sequence[Tuple[Figure, float]], head: str) -> List[str]:
    """A table of figures and what is estimated for each; ``rows``: a figure and estimated by published speed."""
    return table(
        ("network alone, batch 1", "published FPS", head, "factor", "source"),
        [
            (figure.text, f"{figure.fps:g}", f"{figure.fps * value:.0f}", f"{value:.2f}", figure.source)
            for figure, value in rows
        ],
    )


def further_lines(shares: Achieved) -> Iterator[str]:
    """Figures that the fit never sees."""
    yield "## Other published speeds, not fitted"
    yield ""
    rows = [(figure, ratio(figure, shares)) for figure in FURTHER]
    yield from _beside_published(rows, "estimated")
    yield f"Largest error: a factor {max(miss(value) for _, value in rows):.2f}."
    yield ""


def eager_lines(shares: Achieved) -> Iterator[str]:
    """Figures of PyTorch, which are no engines."""
    yield "## Published speeds of PyTorch, which are no engines"
    yield ""
    rows = [(figure, ratio(figure, shares)) for figure in EAGER]
    yield from _beside_published(rows, "an engine, estimated")
    factors = [value for _, value in rows]
    yield f"An engine is taken to be {min(factors):.2f} to {max(factors):.2f} times as fast as PyTorch."
    yield ""


def floor_lines() -> Iterator[str]:
    """What another floor would have given."""
    yield "## The floor"
    yield ""
    rows = []
    for floor_us in (0.0, 5.0, 10.0, 20.0, 30.0):
        shares = fitted(FITTED, floor_us)
        inner = max(miss(value) for _, _, value in left_out(floor_us))
        outer = max(miss(ratio(figure, shares)) for figure in FURTHER)
        rows.append(
            (f"{floor_us:g}", f"{shares.compute:.3f}", f"{shares.bandwidth:.3f}", f"{inner:.2f}", f"{outer:.2f}")
        )
    yield from table(("floor µs", "compute", "bandwidth", "worst left out", "worst of the others"), rows)


def xavier_lines(shares: Achieved) -> Iterator[str]:
    """BiSeNet on both Xaviers, with what was published for the same board and size beside."""
    published = {
        (figure.device, figure.size): f"FCN-ResNet18 {figure.fps:g}"
        for figure in (*FITTED, *FURTHER)
        if figure.network == "FCN-ResNet18" and figure.precision == "fp16"
    }
    rows = []
    for network in ("BiSeNet R18", "BiSeNet R101"):
        for device in ("xavier-agx", "xavier-nx"):
            for size in ("512x256", "1024x512", "2048x1024"):
                for precision in ("fp16", "int8"):
                    found = estimated(network, size, device, precision, shares)
                    beside = published.get((device, size), "-") if precision == "fp16" else "-"
                    rows.append((network, device_named(device).title, size, precision, *speeds(found), beside))
    yield "## BiSeNet on the Xaviers"
    yield ""
    yield from table(("network", "device", "size", "precision", "bound", "expected", "range", "published FPS"), rows)


def device_lines(shares: Achieved) -> Iterator[str]:
    """BiSeNet R18 at 1024x512 on every device of the table."""
    yield "## BiSeNet R18, 1024x512, on every known device"
    yield ""
    rows = []
    for device in known_devices():
        found = [speeds(estimated("BiSeNet R18", "1024x512", device.name, each.name, shares)) for each in PRECISIONS]
        rows.append((device.title, device.power_mode, *(f"{expected} ({span})" for _, expected, span in found)))
    yield from table(("device", "power mode", *(f"{precision.name}: FPS" for precision in PRECISIONS)), rows)
    floor_ms = len(layers_of("BiSeNet R18", "1024x512")) * FLOOR_US / 1e3
    yield f"The floors alone add up to {floor_ms:.1f} ms here: the fastest boards are far from those of the fit, and"
    yield "their lines say little more than that."


def speeds(found: PrecisionEstimate) -> Tuple[str, str, str]:
    """Bound, expected and range, in pictures a second."""
    low, high = found.range_fps
    return f"{found.bound_fps:.0f}", f"**{found.expected_fps:.0f}**", f"{low:.0f} to {high:.0f}"


_HEAD = """# Estimate: what it is worth, and what it says of the Xaviers

    python benchmarks/estimate_fit.py --write

No speed on this page was measured by us. `rtda-deploy estimate` reads operations and bytes of each layer from the ONNX
graph, fused where engines fuse, and lets a layer take as long as the longer of the two, and a floor. The **bound** uses
the data sheet's peaks and no floor. The **expected** speed uses the shares of the peaks that published engines reached:
two numbers, the same for every device, network and precision. Speeds are those of the network alone, batch 1, without
camera, preprocessing, copies or mask; the published BiSeNetV1 includes the enlargement of its logits to full size.

![The roofline of BiSeNet R18 on an AGX Xavier](estimate.png)
"""
_AFTER_FIT = """\
The T4 is estimated too fast, perhaps because a 70 W board does not hold the clock of its published peak; the A40 too
slow, perhaps because its engine comes from TensorRT 10.3 and the other two from 8.2. A number for the power, or for the
generation of the software, would make both right and would be fitted to one figure each; so there is none.
"""
_AFTER_FURTHER = """\
An fp32 engine computes in TF32 where that exists (A40). The V100 has no fast INT8, so its int8 engine is taken for an
fp16 one, as its published speeds also say (186 and 187). Small pictures on the Xavier are estimated too fast
throughout, by a factor 1.14 to 1.37; expect the lower half of the range there.
"""
_AFTER_EAGER = """\
These are the only figures of the light networks of which board, size and program are known, and they are their
authors' claims; the precision is not said, and is taken for PyTorch's usual one (TF32 in convolutions). They take no
part in the fit and in the error factor: PyTorch starts every layer by itself. That the factor is nearly the same for
all three says that the networks are put in the right proportion to each other. PP-LiteSeg's (274 at 1024x512) names no
board; no speed of these networks with TensorRT on a T4, a 3090 or an Orin is known to us.
"""
_AFTER_FLOOR = """\
Five speeds of large pictures cannot tell a floor from a share of the bandwidth. It is therefore set, to the value where
the speeds of the second table are met best, and only the shares are fitted: to that extent those speeds are not unseen.
"""
_AFTER_XAVIER = """\
The range is a factor {factor:g} either way, the largest error above, and ends at the bound. Beside it stands what was
published for the same board and size: the FCN answers with a grid at 1/32, BiSeNet with one at 1/8, so they are not
equal work. No speed of a BiSeNet on a Xavier has been published that we know of. The int8 lines rest on the T4 and the
A40 alone: no int8 speed of such a network on a Xavier is known to us, and TensorRT may not have an int8 kernel for
every layer there. Treat them as what could be gained, and measure on the board.
"""


def report(shares: Achieved, *, page: bool) -> str:
    """Everything this script has to say; as a page, with words in between."""
    parts = [
        (_HEAD if page else "", ()),
        ("", fit_lines(shares)),
        (_AFTER_FIT if page else "", further_lines(shares)),
        (_AFTER_FURTHER if page else "", eager_lines(shares)),
        (_AFTER_EAGER if page else "", floor_lines() if page else ()),
        (_AFTER_FLOOR if page else "", xavier_lines(shares)),
        (_AFTER_XAVIER.format(factor=shares.error_factor) if page else "", device_lines(shares) if page else ()),
    ]
    lines = [line for words, more in parts for line in (*words.splitlines(), *([""] if words else []), *more)]
    return "\n".join(lines).rstrip() + "\n"


def picture(shares: Achieved) -> None:
    """docs/results/estimate.png: BiSeNet R18 on an AGX Xavier."""
    found = estimated("BiSeNet R18", "1024x512", "xavier-agx", "fp16", shares)
    shown = Estimate("", device_named("xavier-agx"), (1, 3, 512, 1024), (found,), shares, ())
    save_picture(shown, PICTURE, name="BiSeNet R18")


def main() -> None:
    """Fit, print, and say whether devices.toml is up to date."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--write", action="store_true", help="write docs/results/estimate.md and its picture")
    options = parser.parse_args()
    shares = constants()
    if options.write:
        write_text(PAGE, report(shares, page=True))
        picture(shares)
        print(f"wrote {PAGE} and {PICTURE.name}")
    else:
        print(report(shares, page=False), end="")
    if dataclasses.replace(achieved(), source="") != shares:
        print(
            f"devices.toml holds other constants: {achieved()}\nthe fit gives:              {shares}", file=sys.stderr
        )
        sys.exit(1)


if __name__ == "__main__":
    main()
