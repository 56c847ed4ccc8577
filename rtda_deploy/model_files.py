"""Model files by their names, and what stands in their place where a download or a checkout went wrong."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Optional, Union

from rtda_deploy.pictures.content_kind import Described, describe, kind_of

__all__ = ["PADDLE_SUFFIX", "impostor", "is_checkpoint_name"]

PADDLE_SUFFIX = ".pdparams"  # of a checkpoint of Paddle
_CHECKPOINT = re.compile(r"\.((pth|pt|ckpt)(\.tar)?|pdparams)$", re.IGNORECASE)
_LOOKED_AT = 1024  # bytes
_SAFETENSORS = re.compile(rb'.{4}\x00{4}\{"', re.DOTALL)  # the length of its header in 8 bytes, then the header
_TAR = slice(257, 262)  # where "ustar" stands in a tar archive


def impostor(path: Union[str, Path]) -> Optional[Described]:
    """What a file is that is no model, where its first bytes say so: a web page, a Git LFS pointer, an archive.

    None for a zip archive, which a checkpoint is too, and where nothing is known.
    """
    try:
        with open(path, "rb") as stream:
            head = stream.read(_LOOKED_AT)
    except OSError:
        return None
    name = Path(path).name
    if head[_TAR] == b"ustar":
        return Described("a tar archive", f"unpack it and name the model in it: tar xf {name}")
    if _SAFETENSORS.match(head):
        code = f"import torch, safetensors.torch as s; torch.save(s.load_file('{name}'), 'weights.pth')"
        return Described("a safetensors file", f'write it as a .pth: python -c "{code}"')
    kind = kind_of(head)
    found = describe(kind)
    return found if found.text and kind != "zip" else None


def is_checkpoint_name(path: Union[str, Path]) -> bool:
    """Whether a name is that of a checkpoint: ``.pth``, ``.pt``, ``.ckpt``, one of them and ``.tar``, ``.pdparams``.

    Training scripts write ``checkpoint.pth.tar`` with ``torch.save``; it is no archive.
    """
    return bool(_CHECKPOINT.search(Path(path).name))
