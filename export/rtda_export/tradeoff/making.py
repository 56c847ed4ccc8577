"""The files of the variants that are compared, each made once: a later comparison in the same folder finds them,
until the model, the pictures that it was made on, or those that it is scored on change.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from rtda_deploy import __version__
from rtda_deploy.errors import ConfigError, RtdaError
from rtda_deploy.files import sha256_file, write_text
from rtda_deploy.model_files import is_checkpoint_name
from rtda_deploy.onnx_file import onnx_spec, read_onnx_facts
from rtda_export.precision import FP32, precision_named, precision_of_file
from rtda_export.tradeoff.points import Variant
from rtda_export.tradeoff.stamps import set_stamp, source_stamp

__all__ = ["Maker", "variants"]

Tell = Callable[[str], None]


def variants(
    models: Sequence[Path], sizes_hw: Sequence[Tuple[int, int]], precisions: Sequence[str], tell: Tell
) -> List[Variant]:
    """Every model at every size and precision; an ``.onnx`` at its own size, and quantised ones as they are.

    Raises:
        ConfigError: If a precision is unknown, or nothing is left to compare.
        FileAccessError: If a model cannot be read.
    """
    for precision in precisions:
        precision_named(precision)
    made: List[Variant] = []
    for model, name in zip(models, _names(models)):
        if is_checkpoint_name(model):
            from rtda_training.checkpoint import read_checkpoint

            own = read_checkpoint(model).spec.size_hw
            made += [Variant(model, size, kind, name) for size in sizes_hw or [own] for kind in precisions]
            continue
        own, kind = onnx_spec(model).size_hw, precision_of_file(read_onnx_facts(model)).name
        if any(size != own for size in sizes_hw):
            tell(f"{name} is compared at its own size, {own[1]}x{own[0]}: its .pth can be had at any other")
        made += [Variant(model, own, each, name) for each in (precisions if kind == FP32.name else (kind,))]
    if not made:
        raise ConfigError("there is nothing to compare", hint="give one model at least, .pth or .onnx")
    return made


def _names(models: Sequence[Path]) -> List[str]:
    """Short names that differ: the stem, or with the folder where stems are the same."""
    stems = [model.stem for model in models]
    return [
        stem if stems.count(stem) == 1 else f"{model.resolve().parent.name}/{stem}"
        for model, stem in zip(models, stems)
    ]


class Maker:
    """Exports variants into a folder and scores them, or finds both there.

    Args:
        folder: Where the files go, one folder a variant.
        verify: Pictures that exports are verified on; None: those beside the model.
        calibrate: Pictures that INT8 is calibrated on.
        int8_target: ``cpu`` or ``tensorrt``.
        tell: A line for people.
    """

    def __init__(
        self, folder: Path, *, verify: Optional[str], calibrate: Optional[str], int8_target: str, tell: Tell
    ) -> None:
        self._folder = folder
        self._asked: Dict[str, Any] = {"verify_path": verify}
        self._int8: Dict[str, Any] = {"calibrate": calibrate, "int8_target": int8_target}
        self._tell = tell
        self._digests: Dict[Path, str] = {}
        self._stamps: Dict[str, str] = {}

    def file(self, variant: Variant) -> Path:
        """The variant's file, made if it is not there yet.

        Raises:
            RtdaError: If it cannot be made.
        """
        from rtda_export.export import export_model

        if not is_checkpoint_name(variant.model) and self._own(variant) == variant.precision:
            return variant.model
        place = self.place(variant)
        kept = self.kept(variant)
        if kept.get("file") and Path(kept["file"]).is_file() and sha256_file(Path(kept["file"])) == kept["sha256"]:
            return Path(kept["file"])
        self._tell(f"export  {variant.title}")
        options = {**self._asked, **(self._int8 if precision_named(variant.precision).needs_calibration else {})}
        if is_checkpoint_name(variant.model):
            options["size_hw"] = variant.size_hw
        reduced = None if variant.precision == FP32.name else variant.precision
        result = export_model(
            variant.model, to=("onnx",), precision=reduced, out_dir=place, force=True, **options
        )  # past its limit it is a point of the picture too, and its accuracy says so
        self.keep(variant, {"file": str(result.best), "sha256": sha256_file(result.best)})
        return result.best

    def score(
        self, variant: Variant, file: Path, data: Any, address: str, max_pictures: int, *, provider: str = ""
    ) -> float:
        """mIoU in percent on the data; taken from the folder where that very file was scored on it before.

        Args:
            variant: What the file is of.
            file: As made.
            data: Labelled set.
            address: Of the data.
            max_pictures: Of it.
            provider: What runs it, as for :func:`rtda_export.evaluate`.

        Raises:
            RtdaError: As :func:`rtda_export.evaluate` does.
        """
        from rtda_export.parity.scoring import evaluate

        scores = self.kept(variant).get("scores", {})
        key = self.score_key(file, data, address, max_pictures) + (f" {provider}" if provider else "")
        if isinstance(scores.get(key), float):
            return float(scores[key])
        self._tell(f"score   {variant.title}")
        miou = 100 * evaluate(file, data, max_pictures=max_pictures, provider=provider).scores.miou()
        self.keep(variant, {"scores": {**scores, key: miou}})
        return miou

    def score_key(self, file: Path, data: Any, address: str, max_pictures: int) -> str:
        """What a score is kept under; changes with the file, and with the pictures and labels of the set."""
        if address not in self._stamps:
            self._stamps[address] = set_stamp(data)
        return f"{sha256_file(file)} {address} {self._stamps[address]} {max_pictures} of {len(data)}"

    def place(self, variant: Variant) -> Path:
        """The variant's folder; another model of that name, or another way to make it, has another one."""
        height, width = variant.size_hw
        if variant.model not in self._digests:
            self._digests[variant.model] = sha256_file(variant.model)[:12]
        digest = self._digests[variant.model]
        folder = self._folder / f"{variant.name.replace('/', '-')}-{width}x{height}-{digest}" / variant.precision
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def kept(self, variant: Variant) -> Dict[str, Any]:
        """What is known of it from earlier."""
        try:
            found = json.loads((self.place(variant) / "known.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        same = isinstance(found, dict) and found.get("made") == self._made(variant)
        return found if same else {}

    def keep(self, variant: Variant, facts: Dict[str, Any]) -> None:
        """Add to what is known of it."""
        whole = {**self.kept(variant), **facts, "made": self._made(variant)}
        write_text(self.place(variant) / "known.json", json.dumps(whole, indent=1, sort_keys=True) + "\n")

    def _made(self, variant: Variant) -> Dict[str, Any]:
        """What a file depends on beside the model, size and precision, which its folder says."""
        asked = self._asked["verify_path"]
        verify = str(variant.model.parent / "verify") if asked is None else asked
        made = {"version": __version__, "verified": self._stamped(verify)}
        if precision_named(variant.precision).needs_calibration:
            made.update(int8_target=self._int8["int8_target"], calibrated=self._stamped(self._int8["calibrate"]))
        return made

    def _stamped(self, source: Optional[str]) -> str:
        """Where pictures are read from, and what is there as this comparison began."""
        if str(source) not in self._stamps:
            self._stamps[str(source)] = source_stamp(source)
        return f"{source} {self._stamps[str(source)]}"

    def _own(self, variant: Variant) -> str:
        return precision_of_file(read_onnx_facts(variant.model)).name


def told(variant: Variant, err: RtdaError) -> str:
    """Why a variant is left out, for people."""
    return f"{variant.title} is left out: {err.message}" + (f"; fix: {err.hint}" if err.hint else "")
