"""The shift alarm's calibration of an exported file: its own signals on footage, written into its card.

Each file is run itself, in its precision and at its size: signals of an INT8 file are not quite those of a float32 one.
"""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Iterator, List, Union

import numpy as np

from rtda_deploy.errors import ConfigError, ExportError
from rtda_deploy.familiar import MONITOR, MOST_BLOCKS, SAMPLE_S, SAMPLES, SIGNALS, Familiar, with_familiar
from rtda_deploy.files import write_bytes
from rtda_deploy.masking import mask_password
from rtda_deploy.onnx_file import CARD_KEY, read_onnx_facts
from rtda_deploy.optional import require
from rtda_export.steps.step import ExportEvent, Tell

__all__ = ["give_blocks", "measured_blocks"]

_MOST_FRAMES = 2 * MOST_BLOCKS * SAMPLES  # an hour; of longer footage the first
_TOLD_EVERY = 30
_READ_TIMEOUT_S = 5.0


def give_blocks(path: Path, footage: Union[str, Path], tell: Tell, *, target: Path) -> Familiar:
    """Run a file over footage and write the blocks into its card, beside what stands there.

    Args:
        path: ``.onnx``, written to.
        footage: A video, a bag, or a folder of pictures, one a second.
        tell: Told of progress.
        target: The file's name in what is told.

    Raises:
        ConfigError: If the file was exported without ``--monitor``, or the footage is too short for any alarm.
        RtdaError: If the footage cannot be read.
    """
    from rtda_export.graph.from_torch import read_onnx

    tell(ExportEvent("familiar", "start", path=target))
    found = measured_blocks(path, footage, tell, target=target)
    card = with_familiar(read_onnx_facts(path).card, found)
    model = read_onnx(path)
    kept = {entry.key: entry.value for entry in model.metadata_props}
    require("onnx", extra="export").helper.set_model_props(model, {**kept, CARD_KEY: card})
    write_bytes(path, model.SerializeToString(deterministic=True))
    tell(ExportEvent("familiar", text=_text(found), path=target))
    return found


def measured_blocks(path: Path, footage: Union[str, Path], tell: Tell, *, target: Path) -> Familiar:
    """The blocks of a monitored ``.onnx`` on footage; errors as of :func:`give_blocks`."""
    from rtda_runtime.engines import open_engine
    from rtda_runtime.mask.preprocess import Preprocessor
    from rtda_training.judge.blocks import LEAST_FRAMES, familiar_of

    done = 0
    recordings: List[np.ndarray] = []
    with open_engine(path, "cpu") as engine:
        if engine.monitor is None:
            raise ConfigError(
                f"{target.name} gives no signals for the shift alarm",
                hint=f"export the checkpoint it came from: rtda-deploy export ckpt.pth --monitor --footage {footage}",
            )
        prepare = Preprocessor(engine.spec)
        for frames in _by_recording(str(footage)):
            rows = []
            for frame in itertools.islice(frames, _MOST_FRAMES - done):
                prepare(frame, engine.input_buffer)
                engine.infer()
                rows.append(engine.monitor.copy())
                done += 1
                if done % _TOLD_EVERY == 0:
                    tell(ExportEvent("familiar", "progress", text=f"signals of frame {done}", path=target))
            if rows:
                recordings.append(np.stack(rows))
        given = engine.spec.provenance["export"][MONITOR]
        widths = tuple(int(given.get(name, 0)) for name in SIGNALS)
    found = familiar_of(recordings, widths, data=mask_password(str(footage)), robot=True)
    if found is None:
        raise ConfigError(
            f"{mask_password(str(footage))} has {done} frames a second apart, too few for a shift alarm",
            why=f"it is calibrated on blocks of {SAMPLES} seconds, and needs {LEAST_FRAMES // SAMPLES} at least",
            hint="some minutes of what the robot sees are better: --footage PATH   (a video, a bag, a folder of "
            "pictures, one a second)",
        )
    return found


def _by_recording(footage: str) -> Iterator[Iterator[np.ndarray]]:
    """The frames of each recording, uint8 (H, W, 3) BGR, a second apart; pictures of a folder are taken to be that."""
    from rtda_runtime import open_source
    from rtda_runtime.sources.footage import FootageAddress, names_footage, numbers_every, open_footage

    if names_footage(footage):
        address = FootageAddress.parse(footage)
        for recording in open_footage(address):
            numbers = numbers_every(recording, address.every_s or SAMPLE_S, address.from_s, address.to_s)
            yield (frame.image for frame in recording.frames(numbers))
        return
    with open_source(footage) as source:
        if source.live:
            raise ExportError(
                f"{source.name} is a camera, not footage",
                hint="record some minutes and give the file: --footage PATH   (a video, a bag, a folder of pictures)",
            )
        yield (frame.image for frame in iter(lambda: source.read(_READ_TIMEOUT_S), None))


def _text(found: Familiar) -> str:
    from rtda_runtime.shift.alarm import calibrations, supported_s
    from rtda_runtime.shift.support import duration_text

    longest = supported_s(calibrations(found), found.block_s)
    supports = f"supports --shift {duration_text(longest)}" if longest else "too alike or too few for an alarm"
    return f"{found.blocks} blocks of {found.block_s:g} s, {supports}"
