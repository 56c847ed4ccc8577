"""A step of an export: what it works with, what it tells on the way, what it made, and how a file is verified."""

from __future__ import annotations

import dataclasses
import shutil
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple

from rtda_deploy.files import atomic_path
from rtda_deploy.spec import ModelSpec
from rtda_export.parity.compare import verify
from rtda_export.parity.frames import NamedFrame
from rtda_export.parity.report import ParityReport
from rtda_export.precision import Precision
from rtda_export.request import Request

__all__ = ["ExportEvent", "ExportStep", "Tell", "Workbench", "copied"]


@dataclasses.dataclass(frozen=True)
class ExportEvent:
    """What an export reports while it runs.

    Attributes:
        name: ``plan``, ``note``, ``info``, ``onnx``, ``bf16``, ``fp16``, ``int8``, ``engine``, ``verify``, ``score``,
            ``spec``, or that of a program that a configuration was written for.
        state: ``start`` when a long step begins; ``progress`` while it goes on; ``done`` when it ended, and for those
            that take no time.
        text: One line for a person.
        path: The file it made, under its final name.
        size_bytes: Of that file.
        seconds: It took.
        parity: The comparison's figures, of ``verify``.
    """

    name: str
    state: str = "done"
    text: str = ""
    path: Optional[Path] = None
    size_bytes: Optional[int] = None
    seconds: Optional[float] = None
    parity: Optional[ParityReport] = None


Tell = Callable[[ExportEvent], None]


@dataclasses.dataclass(frozen=True)
class ExportStep:
    """One file that an export made, or the float32 one in the arithmetic of a CPU.

    Attributes:
        name: ``onnx``, ``bf16``, ``fp16``, ``int8`` or ``engine``.
        path: The file.
        spec: What it holds.
        parity: How it compares with what it came from.
        seconds: Making it took.
        kept_fp32: Reason by name of the layers that were kept in float32.
        miou: Of the reference and of the file, percent, where labelled pictures were given.
        notes: What its maker has to say.
        more_files: Written beside it.
    """

    name: str
    path: Path
    spec: ModelSpec
    parity: ParityReport
    seconds: float
    kept_fp32: Mapping[str, str] = dataclasses.field(default_factory=dict)
    miou: Optional[Tuple[float, float]] = None
    notes: Tuple[str, ...] = ()
    more_files: Tuple[Path, ...] = ()

    @property
    def files(self) -> Tuple[Path, ...]:
        """Every file it made, but the page."""
        return (self.path, *self.more_files)

    def to_dict(self) -> Dict[str, Any]:
        """JSON-ready; see ``ExportResult.to_dict``."""
        return {
            "name": self.name,
            "path": str(self.path),
            "bytes": self.path.stat().st_size,
            "seconds": round(self.seconds, 3),
            "parity": self.parity.to_dict(),
            "kept_fp32": dict(self.kept_fp32),
            "miou": None if self.miou is None else {"before": self.miou[0], "after": self.miou[1]},
            "notes": list(self.notes),
        }


@dataclasses.dataclass(frozen=True)
class Workbench:
    """What every step of an export works with.

    Attributes:
        request: What was asked for.
        folder: For files that are not verified yet, on the disk where they will stay. A file has its final name there,
            so that whatever is wrong with it is told by that name.
        frames: To verify on.
        seen: Frames that a precision is calibrated on; empty where it is not.
        tell: Told of progress.
        scored: mIoU of files that were scored already, percent.
    """

    request: Request
    folder: Path
    frames: List[NamedFrame]
    seen: List[NamedFrame]
    tell: Tell
    scored: Dict[Path, float] = dataclasses.field(default_factory=dict)

    @property
    def reference(self) -> Path:
        """The ``.onnx`` with plain logits in float32 that later steps start from and are compared with."""
        request = self.request
        return self.folder / "reference" / request.file().name if request.from_checkpoint else request.parent

    def verified(
        self,
        a: Path,
        b: Path,
        precision: Precision,
        *,
        text: str,
        spec: Optional[ModelSpec] = None,
        size_hw: Optional[Tuple[int, int]] = None,
        page: str = "",
        names: Tuple[str, str] = ("", ""),
        provider: str = "",
        force: Optional[bool] = None,
    ) -> ParityReport:
        """Compare two files and tell how alike they are.

        Args:
            a: The reference.
            b: What was made.
            precision: Whose limits hold.
            text: The comparison for people.
            spec: Of the reference, where it has none, or another, of its own.
            size_hw: Size to run a checkpoint at; None: as trained.
            page: File name of the page; empty: named after ``b``.
            names: What to call them; file names where empty.
            provider: What runs ``b``, as for ``open_network``.
            force: Whether a limit may be missed; None: as the export was asked.

        Raises:
            ParityError: If ``b`` does not answer as ``a``.
        """
        self.tell(ExportEvent("verify", "start"))
        started = time.perf_counter()
        parity = verify(
            a,
            b,
            self.frames,
            limit=precision.name,
            out_dir=self.request.folder,
            page_name=page or f"verify.{'.'.join(b.name.rsplit('.', 2)[-2:])}.html",
            size_hw=size_hw,
            specs=(spec, None),
            names=names,
            providers=("", provider),
            force=self.request.options.force if force is None else force,
        )
        self.tell(ExportEvent("verify", text=text, seconds=time.perf_counter() - started, parity=parity))
        return parity

    def forced(self, parity: ParityReport) -> Tuple[str, ...]:
        """Tell that a file is kept past its limit; empty where it is not."""
        if not parity.missed:
            return ()
        note = f"{parity.b} kept by --force although {'; '.join(parity.missed)}"
        self.tell(ExportEvent("note", text=note))
        return (note,)


def copied(source: Path, target: Path) -> Path:
    """Copy a file, whole or not at all: what is verified gets its final name so.

    Raises:
        FileAccessError: If it cannot be written.
    """
    with atomic_path(target) as temporary:
        shutil.copyfile(source, temporary)
    return target
