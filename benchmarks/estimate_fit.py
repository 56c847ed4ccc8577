"""What `rtda-deploy estimate` is worth: its two constants, fitted to published speeds and tried on those left out.

    python benchmarks/estimate_fit.py            # figures, errors, constants, estimates for the Xaviers
    python benchmarks/estimate_fit.py --write    # the same as docs/results/estimate.md, with the picture

Published speeds (`published_speeds.py`) of networks (`published_networks.py`) determine the shares of peak and
bandwidth that engines reach; each is then predicted by a fit on the others. Nothing is fitted to a device. Speeds that
the fit never sees follow: other precisions and sizes. Ends with 1 where devices.toml holds other constants than the fit
gives.
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
from typing import Any, Iterator, List, Sequence, Tuple

import onnx
import torch
from published_networks import NETWORKS, OF_ONE_SIZE
from published_speeds import FITTED, FURTHER, LATER, NO_ENGINES, SMALL, Figure

from rtda_deploy.files import write_text
from rtda_deploy.sizes import parse_size
from rtda_export.precision import PRECISIONS
from rtda_export.roofline.devices import Achieved, achieved, device_named, known_devices
from rtda_export.roofline.estimator import Estimate, PrecisionEstimate, estimate_layers
from rtda_export.roofline.layers import Layer, fused_layers
from rtda_export.roofline.picture import save_picture

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "results" / "estimate.md"
PICTURE = PAGE.with_name("estimate.png")
FLOOR_US = 10.0  # not fitted: speeds of large pictures say little about it; --write prints what others would give
_GOAL = 1.5


@functools.lru_cache(maxsize=None)
def graph_of(network: str, size_hw: Tuple[int, int] = (64, 64)) -> Any:
    """A network as ONNX; traced at 64x64 where everything in it scales."""
    buffer = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the tracer's
        torch.onnx.export(
            NETWORKS[network]().eval(),
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
    if network in OF_ONE_SIZE:
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
    """Each fitted figure, the shares fitted to the others, and its ratio by them."""
    found = []
    for figure in FITTED:
        shares = fitted(tuple(other for other in FITTED if other is not figure), floor_us)
        found.append((figure, shares, ratio(figure, shares)))
    return found


def constants() -> Achieved:
    """What devices.toml must hold: the shares fitted to all, and the largest miss of any figure, rounded up."""
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
    yield f"## {len(FITTED)} published speeds, each predicted from the others"
    yield ""
    yield from table(
        ("network alone, batch 1", "published FPS", "left out: predicted", "factor", "compute, bandwidth", "source"),
        [
            (
                figure.text,
                f"{figure.fps:.4g}",
                f"{figure.fps * value:.0f}",
                f"{value:.2f}",
                f"{others.compute:.3f}, {others.bandwidth:.3f}",
                figure.source.text,
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
        "Fitted to all, used by `rtda-deploy estimate` (`[achieved]` in `export/rtda_export/roofline/devices.toml`):"
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
            (figure.text, f"{figure.fps:.4g}", f"{figure.fps * value:.0f}", f"{value:.2f}", figure.source.text)
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
    yield later_sentence()
    yield ""


def later_sentence() -> str:
    """What the fit to the figures that were there first says of those that joined."""
    before = fitted(tuple(figure for figure in FITTED if figure.source not in LATER))
    values = sorted(ratio(figure, before) for figure in (*FITTED, *FURTHER) if figure.source in LATER)
    return (
        f"Of these and the fitted ones {len(values)} joined later. The shares fitted to those that were there before "
        f"({before.compute:.3f} and {before.bandwidth:.3f}), by which none of them had been seen, give "
        f"{values[0]:.2f} to {values[-1]:.2f} of what was published, half of them {values[len(values) // 4]:.2f} "
        f"to {values[3 * len(values) // 4]:.2f}."
    )


def small_lines(shares: Achieved) -> Iterator[str]:
    """Figures of pictures smaller than any that the fit and the error factor know."""
    yield "## Published speeds at 224x224, for which the estimate is not made"
    yield ""
    rows = [(figure, ratio(figure, shares)) for figure in SMALL]
    yield from _beside_published(rows, "estimated")
    factors = [value for _, value in rows]
    yield f"The estimate gives {min(factors):.2f} to {max(factors):.2f} of what was published."
    yield ""


def source_lines() -> Iterator[str]:
    """Where every figure was read."""
    yield "## Where the figures were read"
    yield ""
    sources = dict.fromkeys(figure.source for figure in (*FITTED, *FURTHER, *SMALL, *NO_ENGINES))
    yield from (f"- {source.text}: <{source.address}>" for source in sources)
    yield ""


def no_engine_lines(shares: Achieved) -> Iterator[str]:
    """Figures of PyTorch and Paddle."""
    yield "## Published speeds of PyTorch and Paddle, which are no engines"
    yield ""
    rows = [(figure, ratio(figure, shares)) for figure in NO_ENGINES]
    yield from _beside_published(rows, "an engine, estimated")
    factors = [value for _, value in rows]
    yield f"An engine is taken to be {min(factors):.2f} to {max(factors):.2f} times as fast as these."
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
camera, preprocessing or copies; most of the published engines enlarge their logits to full size, mmdeploy's give the
class of each pixel, and what is counted here does the same.

![The roofline of BiSeNet R18 on an AGX Xavier](estimate.png)
"""
_AFTER_FIT = """\
Which figures are fitted was settled by a rule before any of the later ones was estimated: fp16 engines on pictures of
at least half a megapixel, and of many sizes of a network those nearest to two megapixels and 1024x512. No figure of an
A100 is among them: none with TensorRT on such pictures was found.

The T4 is estimated too fast with BiSeNet, perhaps because a 70 W board does not hold the clock of its published peak;
its README gave 60, 68 and 78 FPS one after the other, as TensorRT went from 7 to 8.2. ResNet-50 on the RTX 3090 is
estimated too slow: its 1x1 convolutions move much for what they compute, and the estimate takes every map from memory,
where an engine finds part of it in a cache. The Orin's power mode is not told, and is taken for the fastest. A number
for each of these would make them right and would be fitted to one figure; so there is none.
"""
_AFTER_FURTHER = """\
An fp32 engine computes in TF32 where that exists (A40, RTX 3090), and an fp16 one in fp32 where fp16 is not fast (GTX
1080 Ti). The V100 has no fast INT8, so its int8 engine is taken for an fp16 one, as its published speeds also say (186
and 187). Where an fp32 engine has CUDA cores only (T4, GTX 1080 Ti) it is estimated too slow, by up to a third: 3x3
convolutions can be had there for fewer products than are counted (Winograd). PP-LiteSeg and DDRNet on the GTX 1080 Ti
are the only speeds of the light networks with TensorRT that are known to us; the program that timed PP-LiteSeg does not
wait for the last pictures. Small pictures are estimated too fast, on the Xavier up to a factor 1.43, on the RTX 3090 in
fp32 up to 1.49, where the engine was built for pictures of up to 3840x2144 too; expect the lower half of the range
there. So is FCN-ResNet50 in INT8 on the T4, the largest error, for the reason that BiSeNet is.
"""
_AFTER_SMALL = """\
These take no part in the fit and in the error factor. At this size the floors of the layers are most of the estimate
(half a millisecond for ResNet-50), and MLPerf's programs avoid them: NVIDIA's settings, read for v2.0, replay a CUDA
graph. Hence the Orins are estimated at six tenths of their speed. MLPerf's times are means, from a picture in memory to
its class; in NVIDIA's settings the A100's picture starts in the memory of the GPU. That the network is int8 was read in
the settings of v0.7 for MLPerf's other scenarios. The logs hold 90th percentiles too.
"""
_AFTER_NO_ENGINES = """\
The precision is not said for Paddle; of PyTorch's, the script feeds float32 and leaves PyTorch's setting, which is TF32
in convolutions. They take no part in the fit and in the error factor: such a runtime starts every layer by itself. That
the factor is nearly the same for all three networks of GCNet's authors, and for both of PP-LiteSeg at both sizes, says
that they are put in the right proportion to each other.
"""
_AFTER_FLOOR = """\
Speeds of large pictures cannot tell a floor from a share of the bandwidth. It is therefore set, to the value where the
speeds of the second table were met best when there were thirteen of them, and only the shares are fitted: to that
extent those thirteen are not unseen.
"""
_AFTER_XAVIER = """\
The range is a factor {factor:g} either way, the largest error above, and ends at the bound. Beside it stands what was
published for the same board and size: the FCN answers with a grid at 1/32, BiSeNet with one at 1/8, so they are not
equal work. No speed of a BiSeNet on a Xavier has been published that we know of. The int8 lines rest on larger boards:
no int8 speed of such a network on a Xavier is known to us, and TensorRT may not have an int8 kernel for every layer
there. Treat them as what could be gained, and measure on the board.
"""


def report(shares: Achieved, *, page: bool) -> str:
    """Everything this script has to say; as a page, with words in between."""
    parts = [
        (_HEAD if page else "", ()),
        ("", fit_lines(shares)),
        (_AFTER_FIT if page else "", further_lines(shares)),
        (_AFTER_FURTHER if page else "", small_lines(shares)),
        (_AFTER_SMALL if page else "", no_engine_lines(shares)),
        (_AFTER_NO_ENGINES if page else "", floor_lines() if page else ()),
        (_AFTER_FLOOR if page else "", xavier_lines(shares)),
        (_AFTER_XAVIER.format(factor=shares.error_factor) if page else "", device_lines(shares) if page else ()),
        ("", ("", *source_lines()) if page else ()),
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
