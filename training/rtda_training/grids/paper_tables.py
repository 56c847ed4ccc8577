"""The result tables of the papers as printed: per class IoU and mIoU in percent, each with where it stands.

Facts only, typed from ``Table I`` and the like; nothing here was measured by this project. A row whose classes do not
average to its mIoU says so itself (:meth:`PublishedRow.averages`).
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping

from rtda_deploy.errors import ConfigError
from rtda_training.labels import PROTOCOLS

__all__ = ["PUBLISHED", "PublishedRow", "published_row"]

_ROUNDING = 0.055  # printed with one digit: half of the last one, and as much again for a mean of rounded values / 19


@dataclasses.dataclass(frozen=True)
class PublishedRow:
    """One printed row.

    Attributes:
        key: ``paper/table/row``, how a grid names it.
        paper: Who printed it.
        table: Where in the paper.
        row: What the paper calls the row.
        miou: Percent, as printed.
        protocol: Over how many of Cityscapes' classes: 19, 16 or 13.
        iou: Percent per class, as printed; empty where the paper prints no classes.
        pixel_accuracy: Percent; None where the paper prints none.
        source: Kind of the labelled set; empty for an oracle.
        target: Kind of the set measured on.
        network: Segmentation network.
        backbone: Its backbone.
        size: Network input in training, width x height; empty where the paper does not say.
        note: What else a reader must know.
    """

    key: str
    paper: str
    table: str
    row: str
    miou: float
    protocol: int
    iou: Mapping[str, float]
    pixel_accuracy: float | None
    source: str
    target: str
    network: str
    backbone: str
    size: str
    note: str = ""

    def mean(self) -> float | None:
        """What the printed classes average to; None where not all of the protocol's are printed."""
        names = PROTOCOLS[self.protocol]
        if not all(name in self.iou for name in names):
            return None
        return sum(self.iou[name] for name in names) / len(names)

    def averages(self) -> bool:
        """Whether the printed classes average to the printed mIoU, as far as that can be told."""
        mean = self.mean()
        return mean is None or abs(mean - self.miou) <= _ROUNDING


def published_row(key: str) -> PublishedRow:
    """The row of that name.

    Raises:
        ConfigError: If there is none, naming the nearest.
    """
    if key not in PUBLISHED:
        near = difflib.get_close_matches(key, PUBLISHED, n=1, cutoff=0.3)
        papers = sorted({known.partition("/")[0] for known in PUBLISHED})
        meant = f"did you mean {near[0]}? " if near else ""
        raise ConfigError(
            f"published row {key!r} is unknown",
            hint=f"{meant}papers: {', '.join(papers)} (rtda_training/grids/paper_tables.py)",
        )
    return PUBLISHED[key]


@dataclasses.dataclass(frozen=True)
class _Table:
    """What all rows of a printed table share."""

    prefix: str
    paper: str
    table: str
    protocol: int
    source: str
    network: str
    backbone: str
    size: str = "1024x512"
    note: str = ""

    def rows(self, text: str) -> dict[str, PublishedRow]:
        """Lines ``key | row | classes | mIoU [| note]``; an oracle's key ends in ``target-only``."""
        found = {}
        for line in text.strip().splitlines():
            key, row, classes, miou, *note = (part.strip() for part in line.split("|"))
            values = [float(value) for value in classes.split()]
            key = f"{self.prefix}/{key}"
            found[key] = PublishedRow(
                key,
                self.paper,
                self.table,
                row,
                float(miou),
                self.protocol,
                dict(zip(PROTOCOLS[self.protocol], values, strict=True)) if values else {},
                None,
                "" if "target-only" in key else self.source,
                "cityscapes",
                self.network,
                self.backbone,
                self.size,
                note[0] if note else self.note,
            )
        return found


_RTDA = "Tavera, Masone, Caputo: Reimagine BiSeNet for Real-Time Domain Adaptation"
_SLIDES = "D'Ascenzi, de Girolamo, Rosero: Adversarial Domain Adaptation for Real-time Segmentation (slides)"
_SSL = "Bartoletti et al.: Multiple Layer Self Supervised Learning for Real-time Segmentation"
_PFR = "Zhang, Zhao, Zhang: Adaptive Semantic Segmentation by Progressive Feature Refinement"
_BDL = "Li, Yuan, Vasconcelos: Bidirectional Learning (CVPR 2019), as in the slides"

_RTDA_GTA5 = _Table("rtda/table-1", _RTDA, "Table I", 19, "gta5", "bisenet", "resnet101").rows(
    """
target-only | Target Only | 97.11 77.88 88.67 48.31 48.31 41.33 39.56 48.36 58.27 89.07 57.03 91.86 66.45 40.47 90.63 60.23 67.11 50.32 44.93 | 64.17 | 48.31 is printed twice and the columns from fence on are shifted
fcd | FCD | 74.21 28.66 72.47 12.57 16.31 12.72 28.03 17.32 80.17 14.64 77.31 41.97 8.88 65.58 18.2 6.85 18.33 11.71 0.0 | 31.89
fcd-light | FCD-Light | 83.17 33.53 68.9 11.37 7.59 13.46 25.12 14.51 79.49 30.09 74.97 41.47 13.61 67.73 19.84 7.05 4.92 14.63 0.0 | 32.18
light-thin | FCD-LightThin | 83.92 37.21 74.23 14.19 15.63 17.61 29.93 19.16 79.85 24.91 72.14 43.24 11.15 61.0 17.41 14.28 7.16 8.22 0.0 | 33.22
"""  # noqa: E501 - rows as printed
)
_RTDA_SYNTHIA = _Table("rtda/table-2", _RTDA, "Table II", 16, "synthia", "bisenet", "resnet101").rows(
    """
target-only | Target Only | 97.11 77.88 88.67 48.31 48.31 41.33 39.56 48.36 58.27 57.03 91.86 66.45 40.47 60.23 50.32 44.93 | 64.17 | copied from Table I, of 19 classes
fcd | FCD | 72.74 32.18 75.31 4.45 0.35 14.07 0.09 2.58 66.39 80.87 35.84 3.32 54.26 18.08 1.49 9.18 | 29.45
fcd-light | FCD-Light | 68.02 33.17 74.76 8.69 0.32 16.41 6.25 4.77 56.92 80.67 37.33 4.64 50.61 17.7 3.49 16.63 | 30.02
light-thin | FCD-LightThin | 63.01 23.5 76.94 8.71 0.74 19.93 9.04 7.52 76.56 79.98 44.01 4.29 63.76 14.56 1.99 11.97 | 31.66
"""  # noqa: E501
)
_SLIDES_ORACLE = _Table("slides/augmentation", _SLIDES, "Upper Bound / Augmentation", 19, "gta5", "bisenet", "resnet18")
_SLIDES_AUGMENTATION = _SLIDES_ORACLE.rows(
    """
target-only-none | None || 47.3
target-only-blur | Blur || 47.0
target-only-flip | Horizontal Flipping || 49.7
target-only-flip-blur | Horizontal Flipping and Blur || 49.9
"""
)
_SLIDES_ACCURACY = {"none": 79.3, "blur": 79.1, "flip": 79.8, "flip-blur": 79.7}
_SLIDES_RESULTS = _Table("slides/results", _SLIDES, "Results", 19, "gta5", "bisenet", "resnet18").rows(
    """
target-only | Target only || 49.9
source-only | No domain adaptation || 13.4
fcd | Fully Conv || 24.2
fcd-light | LW Conv || 24.4
fda-01 | LW Conv, FDA (beta 0.01) || 27.0
fda-05 | LW Conv, FDA (beta 0.05) || 26.6
fda-10 | LW Conv, FDA (beta 0.10) || 27.4
fda-10-no-blur | LW Conv, FDA (beta 0.10, no blur) || 26.9
"""
)
_SSL_NOTE = "500 + 500 training pictures"
_SSL_ORACLES = _Table("ssl/table-1", _SSL, "Table I", 19, "gta5", "bisenet", "resnet101", note=_SSL_NOTE).rows(
    """
target-only-r101 | ResNet-101 | 97.01 76.12 88.77 47.46 42.85 42.97 49.01 61.59 88.97 55.45 91.28 66.16 43.82 90.27 40.21 36.57 33.95 38.16 61.86 | 60.7
target-only-r18 | ResNet-18 | 96.05 70.99 86.40 29.81 38.04 38.16 37.44 53.49 87.35 52.45 89.72 59.91 32.08 87.47 23.15 46.08 42.5 28.49 54.75 | 55.5
"""  # noqa: E501
)
_SSL_RESULTS = _Table("ssl/table-2", _SSL, "Table II", 19, "gta5", "bisenet", "resnet101", note=_SSL_NOTE).rows(
    """
target-only | Target Only | 97.01 76.12 88.77 47.46 42.85 42.97 49.01 61.59 88.97 55.45 91.28 66.16 43.82 90.27 40.21 36.57 33.95 38.16 61.86 | 60.7
fcd | FCD | 76.28 23.13 76.77 28.22 10.85 21.09 19.04 5.78 80.75 27.37 70.53 40.95 10.38 66.58 13.11 7.70 0. 6.47 0. | 30.8
fcd-light | FCD-Light | 81.94 33.81 75.76 22.63 10.98 21.06 11.54 6.20 78.55 21.75 70.53 36.95 7.11 66.54 14.95 8.72 0. 8.52 0. | 30.4
ssl-1 | FCD-SSL | 78.92 23.06 78.59 23.21 14.21 21.90 16.20 6.15 81.73 23.84 72.3 45.41 13.3 72.96 12.48 6.52 0. 7.01 0. | 31.5
ssl-2 | FCD-SSL-2 | 79.94 21.85 78.74 22.37 11.40 20.60 16.49 6.09 81.79 25.69 74.82 43.33 10.87 72.12 12.63 4.38 0. 6.42 0. | 31.0
ssl-3 | FCD-SSL-3 | 80.62 24.26 78.55 21.33 12.74 21.07 15.80 5.68 81.96 25.66 74.27 43.85 11.11 73.98 12.73 3.17 0.14 6.91 0.01 | 31.3
"""  # noqa: E501
)
_PFR_RESULTS = _Table("pfr/table-1", _PFR, "Table 1", 19, "gta5", "deeplab-v2", "resnet101", size="").rows(
    """
adaptsegnet | AdaptSegNet | 86.5 36.0 79.9 23.4 23.3 23.9 35.2 14.8 83.4 33.3 75.6 58.5 27.6 73.7 32.5 35.4 3.9 30.1 28.1 | 42.4
pfr | Ours | 90.8 40.8 81.9 28.4 24.4 24.2 32.0 17.6 83.8 36.6 72.4 59.3 29.0 82.1 35.5 45.6 3.3 29.1 28.6 | 44.5
"""  # noqa: E501
)
_BDL_STEPS = _Table("bdl/table-1", _BDL, "BDL without SSL", 19, "gta5", "deeplab-v2", "resnet101", "")
_BDL_WITHOUT = _BDL_STEPS.rows(
    """
m0 | M(0) || 33.6
m1 | M(1) || 40.9
m0-f1 | M(0)(F(1)) || 41.1
m01-f1 | M0(1)(F(1)) || 42.7
m02-f2 | M0(2)(F(2)) || 43.3
"""
)
_BDL_LIMITS = _Table("bdl/table-3", _BDL, "Table 3, threshold", 19, "gta5", "deeplab-v2", "resnet101", "").rows(
    """
threshold-95 | M1(1)(F(1)), 0.95 || 45.7
threshold-90 | M1(1)(F(1)), 0.9 || 46.8
threshold-80 | M1(1)(F(1)), 0.8 || 46.4
threshold-70 | M1(1)(F(1)), 0.7 || 45.9
threshold-none | M1(1)(F(1)), none || 44.9
"""
)
_BDL_ROUNDS = _Table("bdl/table-4", _BDL, "Table 4, influence of N", 19, "gta5", "deeplab-v2", "resnet101", "").rows(
    """
m01 | M0(1) || 40.9 | 66 % of pixels above the threshold
m01-f1 | M0(1)(F(1)) || 42.7 | 69 % of pixels above the threshold
m11-f1 | M1(1)(F(1)) || 46.8 | 79 % of pixels above the threshold
m21-f1 | M2(1)(F(1)) || 47.2 | 81 % of pixels above the threshold
m31-f1 | M3(1)(F(1)) || 47.1 | 81 % of pixels above the threshold
"""
)
_BDL_WITH = _Table("bdl/with-ssl", _BDL, "BDL with SSL", 19, "gta5", "deeplab-v2", "resnet101", "")
_BDL_SSL = _BDL_WITH.rows(
    """
m0 | M(0) | 69.0 12.7 69.5 9.9 19.5 22.8 31.7 15.3 73.9 11.3 67.2 54.7 23.9 53.4 29.7 4.6 11.6 26.1 32.5 | 33.6
m01-f1 | M0(1)(F(1)) | 89.1 42.0 82.0 24.3 15.1 27.4 35.7 24.6 81.1 32.4 78.0 57.6 28.7 76.0 26.5 36.0 4.0 25.7 24.9 | 42.7
m11-f1 | M1(1)(F(1)) | 91.2 47.8 84.0 34.8 28.9 31.7 37.7 36.0 84.0 40.4 76.6 57.9 25.3 80.4 31.2 41.7 2.8 27.2 32.4 | 46.8
m21-f1 | M2(1)(F(1)) | 91.4 47.9 84.2 32.4 26.0 31.8 37.3 33.0 83.3 39.2 79.2 57.7 25.6 81.3 36.3 39.7 2.6 31.3 33.5 | 47.2
m02-f2 | M0(2)(F(2)) | 88.2 41.3 83.2 28.8 21.9 31.7 35.2 28.2 83.0 26.2 83.2 57.6 27.0 77.1 27.5 34.6 2.5 28.3 36.1 | 44.3
m12-f2 | M1(2)(F(2)) | 91.2 46.1 83.9 31.6 20.6 29.9 36.4 31.9 85.0 39.7 84.7 57.5 29.6 83.1 38.8 46.9 2.5 27.5 38.2 | 47.6
m22-f2 | M2(2)(F(2)) | 91.0 44.7 84.2 34.6 27.6 30.2 36.0 36.0 85.0 43.6 83.0 58.6 31.6 83.3 35.3 49.7 3.3 28.8 35.6 | 48.5
"""  # noqa: E501
)
_BDL_VGG = _Table("bdl/table-5", _BDL, "Table 5, VGG16", 19, "gta5", "fcn8s", "vgg16", "").rows(
    """
vgg16 | Ours | 89.2 40.9 81.2 29.1 19.2 14.2 29.0 19.6 83.7 35.9 80.7 54.7 23.3 82.7 25.8 28.0 2.3 25.7 19.9 | 41.3
"""
)
_BDL_SYNTHIA = _Table("bdl/table-6", _BDL, "Table 6", 13, "synthia", "deeplab-v2", "resnet101", "").rows(
    "r101 | Ours | 86.0 46.7 80.3 14.1 11.6 79.2 81.3 54.1 27.9 73.7 42.2 25.7 45.3 | 51.4"
)
_BDL_SYNTHIA_VGG = _Table("bdl/table-6", _BDL, "Table 6, VGG16", 16, "synthia", "fcn8s", "vgg16", "").rows(
    "vgg16 | Ours | 72.0 30.3 74.5 0.1 0.3 24.6 10.2 25.2 80.5 80.0 54.7 23.2 72.7 24.0 7.5 44.9 | 39.0"
)

PUBLISHED: dict[str, PublishedRow] = {
    **_RTDA_GTA5,
    **_RTDA_SYNTHIA,
    **{
        key: dataclasses.replace(row, pixel_accuracy=_SLIDES_ACCURACY[key.partition("target-only-")[2]])
        for key, row in _SLIDES_AUGMENTATION.items()
    },
    **_SLIDES_RESULTS,
    **{
        key: dataclasses.replace(row, backbone="resnet18" if key.endswith("r18") else row.backbone)
        for key, row in _SSL_ORACLES.items()
    },
    **_SSL_RESULTS,
    **_PFR_RESULTS,
    **_BDL_WITHOUT,
    **_BDL_LIMITS,
    **_BDL_ROUNDS,
    **_BDL_SSL,
    **_BDL_VGG,
    **_BDL_SYNTHIA,
    **_BDL_SYNTHIA_VGG,
}
