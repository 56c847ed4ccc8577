"""Training: from a labelled synthetic domain and unlabelled target footage to an adapted BiSeNet.

The names below are loaded when first used; ``import rtda_training`` itself loads no torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rtda_deploy.lazy import lazy

if TYPE_CHECKING:
    from rtda_training.loop.events import StopRequest as StopRequest
    from rtda_training.loop.events import TrainEvent as TrainEvent
    from rtda_training.loop.events import TrainingStopped as TrainingStopped
    from rtda_training.loop.events import TrainResult as TrainResult
    from rtda_training.run import evaluate as evaluate
    from rtda_training.run import load as load
    from rtda_training.run import train as train

__all__ = ["StopRequest", "TrainEvent", "TrainResult", "TrainingStopped", "evaluate", "load", "train"]

_HOMES = {
    "StopRequest": "rtda_training.loop.events",
    "TrainEvent": "rtda_training.loop.events",
    "TrainResult": "rtda_training.loop.events",
    "TrainingStopped": "rtda_training.loop.events",
    "evaluate": "rtda_training.run",
    "load": "rtda_training.run",
    "train": "rtda_training.run",
}

__getattr__, __dir__ = lazy(__name__, _HOMES)
