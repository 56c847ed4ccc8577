"""Do two model files answer alike? The check behind every hop of an export, and the command ``verify``.

Both sides see the same pictures, each as its own spec says: normalised, or resized alone where the graph does the rest.
Compared are the coarse logits and, because that is what a robot acts on, the final masks at each picture's own size.
Where a side gives masks or probabilities, both masks are made at the network's input size first, as that side does, and
no logits are compared. Runs without torch and onnx wherever neither side is a ``.pth``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, List, Optional, Sequence, Tuple, Union

import numpy as np

from rtda_deploy.errors import ConfigError, ExportError, ParityError, RtdaError
from rtda_deploy.files import writable_folder
from rtda_deploy.model_files import is_checkpoint_name
from rtda_export.parity.frames import MAX_FRAMES, NamedFrame, read_frames
from rtda_export.parity.networks import Network, open_network
from rtda_export.parity.report import ClassParity, FrameParity, ParityReport, percent
from rtda_export.precision import Limit, limit_named

if TYPE_CHECKING:
    from rtda_deploy.spec import ModelSpec

__all__ = ["Comparison", "verify"]

# What must be equal for a comparison to mean anything: all that decides what a pixel becomes and what an answer is
# called. The palette, ignore_index and the provenance may differ.
_COMPARED_FIELDS = (
    "class_names",
    "size_hw",
    "channel_order",
    "pixel_scale",
    "mean",
    "std",
    "resize",
    "interpolation",
)
_COMPARED_WITH_LOGITS = (*_COMPARED_FIELDS, "output_stride")


def verify(
    a: Union[str, Path],
    b: Union[str, Path],
    frames: Union[str, Path, Sequence[Union[np.ndarray, NamedFrame]]],
    *,
    limit: str = "fp32",
    out_dir: Optional[Union[str, Path]] = None,
    max_frames: int = MAX_FRAMES,
    size_hw: Optional[Tuple[int, int]] = None,
    spec: Optional[ModelSpec] = None,
    specs: Tuple[Optional[ModelSpec], Optional[ModelSpec]] = (None, None),
    names: Tuple[str, str] = ("", ""),
    providers: Tuple[str, str] = ("", ""),
    page_name: str = "verify.html",
    force: bool = False,
) -> ParityReport:
    """Compare two models on the same pictures.

    Args:
        a: The reference: ``.pth``, ``.onnx`` or an engine.
        b: What is checked against it.
        frames: A picture, folder, video or bag, of which up to ``max_frames`` are taken evenly; or arrays uint8
            (H, W, 3) BGR.
        limit: Name of the precision that says how far ``b`` may be from ``a``, such as ``fp16``.
        out_dir: Folder to write the page to; None: no page.
        max_frames: Most pictures to compare.
        size_hw: Size to run a ``.pth`` at; None: as trained.
        spec: Used for both instead of their own.
        specs: Used for one or the other instead of its own.
        names: What to call them; file names where empty.
        providers: What runs each, as for ``open_network``.
        page_name: File name of the page.
        force: Return the report even where a limit was missed.

    Raises:
        ParityError: If a limit was missed (after the page was written), or a logit is NaN or infinite (even if forced).
        ExportError: If the two specs differ (naming the field), or there is no picture.
        RtdaError: If a model or the pictures cannot be read.
    """
    allowed = limit_named(limit)
    named = _named_frames(frames, max_frames)
    if out_dir is not None:
        writable_folder(out_dir)
    size_hw = size_hw or _size_of_the_other(a, b) or _size_of_the_other(b, a)
    with contextlib.ExitStack() as stack:
        reference = stack.enter_context(
            open_network(a, size_hw=size_hw, spec=specs[0] or spec, name=names[0], provider=providers[0])
        )
        checked = stack.enter_context(
            open_network(b, size_hw=size_hw, spec=specs[1] or spec, name=names[1], provider=providers[1])
        )
        _check_specs(reference, checked)
        comparison = Comparison(reference, checked)
        for name, frame in named:
            comparison.add(name, frame)
    report = comparison.report(allowed)
    if out_dir is not None:
        from rtda_export.parity.page import save_page

        page = save_page(Path(out_dir) / page_name, report, reference.spec, comparison.worst_frame)
        report = dataclasses.replace(report, page=page)
    if report.missed and not force:
        raise _past_limit(report)
    return report


def _size_of_the_other(checkpoint: Union[str, Path], other: Union[str, Path]) -> Optional[Tuple[int, int]]:
    """The size that is built into ``other``, where ``checkpoint`` is one and runs at any."""
    if not is_checkpoint_name(checkpoint) or Path(other).suffix.lower() != ".onnx":
        return None
    from rtda_deploy.onnx_file import onnx_spec

    try:
        return onnx_spec(other).size_hw
    except RtdaError:  # opening it raises the error with its reason
        return None


class Comparison:
    """Sums over the pictures; keeps the worst one's frame and masks for the page.

    Attributes:
        worst_frame: Frame, mask of the reference and mask of the other of the picture with the least agreement.
    """

    def __init__(self, reference: Network, checked: Network) -> None:
        self._networks = (reference, checked)
        self._spec = reference.spec
        self._confusion = np.zeros((self._spec.num_classes, self._spec.num_classes), np.int64)
        self._frames: List[FrameParity] = []
        self._on_masks = any(network.spec.output != "logits" for network in self._networks)
        self._low, self._high = math.inf, -math.inf
        self.worst_frame: Tuple[np.ndarray, np.ndarray, np.ndarray]

    def add(self, name: str, frame: np.ndarray) -> None:
        """Compare both on a frame uint8 (H, W, 3) BGR.

        Raises:
            ParityError: If one of them gives NaN or infinity.
            ExportError: If its logits are not those of its spec.
        """
        reference, checked = (self._answer(network, name, frame) for network in self._networks)
        difference = None
        if not self._on_masks:
            self._low, self._high = min(self._low, float(reference.min())), max(self._high, float(reference.max()))
            difference = float(np.abs(reference - checked).max())
        masks = self._mask(self._networks[0], reference, frame), self._mask(self._networks[1], checked, frame)
        entry = FrameParity(name, difference, float((masks[0] == masks[1]).mean()))
        self._count(*masks)
        if all(entry.badness < other.badness for other in self._frames):
            self.worst_frame = (frame, *masks)
        self._frames.append(entry)

    def report(self, limit: Limit) -> ParityReport:
        """The figures of all frames so far, of which there must be one, held against ``limit``."""
        pixels, same = int(self._confusion.sum()), int(np.trace(self._confusion))
        return ParityReport(
            a=self._networks[0].name,
            b=self._networks[1].name,
            limit=limit,
            max_abs=max((frame.max_abs for frame in self._frames if frame.max_abs is not None), default=None),
            logit_range=None if self._on_masks else self._high - self._low,
            agreement=same / pixels,
            pixels=pixels,
            pixels_differing=pixels - same,
            frames=tuple(self._frames),
            classes=tuple(self._class(index) for index in range(self._spec.num_classes)),
            confusion=tuple(tuple(int(count) for count in row) for row in self._confusion),
            notes=tuple(network.note for network in self._networks if network.note),
        )

    def _answer(self, network: Network, frame_name: str, frame: np.ndarray) -> np.ndarray:
        from rtda_runtime.mask.preprocess import network_input, preprocess

        spec = network.spec
        image = network_input(spec)
        preprocess(frame, spec, image)
        answer = network.answer(image)
        if spec.output == "mask":
            return answer
        expected = (spec.num_classes, *spec.output_hw)
        if answer.shape != expected:
            raise ExportError(
                f"{network.name} gives logits {answer.shape}, its spec says {expected}",
                hint="give the right one: --spec spec.json, or export it again from its checkpoint",
            )
        bad = int(answer.size - np.isfinite(answer).sum())
        if bad:
            raise ParityError(
                f"{network.name} gives {bad} of {answer.size} logits as NaN or infinity on {frame_name}",
                hint="look for NaN in its weights (did the training diverge?), or for float16 overflow",
            )
        return answer

    def _mask(self, network: Network, answer: np.ndarray, frame: np.ndarray) -> np.ndarray:
        from rtda_runtime.mask.preprocess import content_box
        from rtda_runtime.mask.upsample import resize_mask

        size_hw = (frame.shape[0], frame.shape[1])
        box = content_box(size_hw, self._spec)
        if not self._on_masks:
            return network.mask(answer, size_hw, box=box)
        top, left, height, width = (float(side) for side in box)
        return resize_mask(network.mask(answer, self._spec.size_hw), size_hw, region=(top, left, height, width))

    def _count(self, reference: np.ndarray, checked: np.ndarray) -> None:
        classes = self._spec.num_classes
        index = reference.astype(np.int64).ravel() * classes + checked.ravel()
        self._confusion += np.bincount(index, minlength=classes * classes).reshape(classes, classes)

    def _class(self, index: int) -> ClassParity:
        both = int(self._confusion[index, index])
        reference = int(self._confusion[index].sum())
        union = reference + int(self._confusion[:, index].sum()) - both
        return ClassParity(
            name=self._spec.class_names[index],
            pixels=reference,
            agreement=both / reference if reference else None,
            iou=both / union if union else None,
        )


def _named_frames(
    frames: Union[str, Path, Sequence[Union[np.ndarray, NamedFrame]]], max_frames: int
) -> List[NamedFrame]:
    if max_frames < 1:
        raise ConfigError(f"max_frames must be at least 1, got {max_frames}", hint="leave it out for 8")
    if isinstance(frames, (str, Path)):
        return read_frames(frames, max_frames)
    named: List[NamedFrame] = []
    for index, entry in enumerate(frames):
        named.append((f"frame {index}", entry) if isinstance(entry, np.ndarray) else (str(entry[0]), entry[1]))
    if not named:
        raise ExportError("there is no picture to compare on", hint="--frames PATH   (a picture, folder, video, bag)")
    return named[:max_frames]


def _check_specs(a: Network, b: Network) -> None:
    both_logits = a.spec.output == b.spec.output == "logits"
    for field in _COMPARED_WITH_LOGITS if both_logits else _COMPARED_FIELDS:
        left, right = getattr(a.spec, field), getattr(b.spec, field)
        if left == right:
            continue
        hint = "compare a model with what was exported from it"
        if field == "size_hw":
            hint = f"export both at one size: rtda-deploy export ckpt.pth --size {left[1]}x{left[0]}"
            left, right = (f"{width}x{height}" for height, width in (left, right))
        raise ExportError(f"{field} differs: {_brief(left)} in {a.name}, {_brief(right)} in {b.name}", hint=hint)


def _brief(value: Any) -> str:
    if isinstance(value, tuple) and value and isinstance(value[0], str):
        return f"{len(value)} classes ({', '.join(value[:3])}{', ...' if len(value) > 3 else ''})"
    return str(list(value)) if isinstance(value, tuple) else str(value)


def _past_limit(report: ParityReport) -> ParityError:
    worst = report.frames[report.worst]
    where = f"; see {report.page}" if report.page else ""
    logits = ""
    if worst.max_abs is not None and report.logit_range is not None:
        logits = f", max |Δlogit| {worst.max_abs:.2g} of a range of {report.logit_range:.3g}"
    return ParityError(
        f"{report.b} does not answer as {report.a}: {'; '.join(report.missed)}",
        why=f"worst picture: {worst.name}, {percent(worst.agreement)} of pixels agree{logits}{where}",
        hint="are both from the same checkpoint? To keep the file as it is: --force",
    )
