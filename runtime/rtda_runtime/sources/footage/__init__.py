"""Footage: recordings read for their pictures, any of them by number; the one place where videos and bags are decoded.

:func:`open_footage` opens what an address means; a :class:`Recording` knows the time of each of its frames before one
is decoded, so that frames are chosen first and only those are decoded. The names are loaded when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rtda_deploy.lazy import lazy

if TYPE_CHECKING:
    from rtda_runtime.sources.footage.address import FootageAddress as FootageAddress
    from rtda_runtime.sources.footage.address import footage_kind as footage_kind
    from rtda_runtime.sources.footage.address import names_footage as names_footage
    from rtda_runtime.sources.footage.base import RecordedFrame as RecordedFrame
    from rtda_runtime.sources.footage.base import Recording as Recording
    from rtda_runtime.sources.footage.base import numbers_every as numbers_every
    from rtda_runtime.sources.footage.kinds import open_footage as open_footage

_HOMES = {
    "FootageAddress": "rtda_runtime.sources.footage.address",
    "RecordedFrame": "rtda_runtime.sources.footage.base",
    "Recording": "rtda_runtime.sources.footage.base",
    "footage_kind": "rtda_runtime.sources.footage.address",
    "names_footage": "rtda_runtime.sources.footage.address",
    "numbers_every": "rtda_runtime.sources.footage.base",
    "open_footage": "rtda_runtime.sources.footage.kinds",
}

__all__ = list(_HOMES)

__getattr__, __dir__ = lazy(__name__, _HOMES)
