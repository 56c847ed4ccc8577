"""Addresses of sources, fit to be shown: without their passwords."""

from __future__ import annotations

import re

__all__ = ["mask_password"]

_SECRET_KEYS = "password|passwd|passphrase|pwd|pass|token|secret|auth|apikey|api_key|access_token|user-pw|proxy-pw"
# Up to the last @ before a space or quote, because passwords typed without escapes hold @, / and ? too. So host:554/a@b
# is masked as well: rather a port too much than a password.
_USER_PART = re.compile(r"(?P<head>[A-Za-z][A-Za-z0-9+.-]*://[^\s:/@\"']*):[^\s\"']*@")
_QUERY_PART = re.compile(rf"(?P<head>(?:^|[?&;\s])(?:{_SECRET_KEYS})=)[^&;#\s!]+", re.IGNORECASE)


def mask_password(uri: str) -> str:
    """``rtsp://user:secret@host/1`` as ``rtsp://user:***@host/1``; also ``?password=``, ``?token=`` and the like.

    Works on any text that has an address in it, such as a GStreamer pipeline or an error message.
    """
    return _QUERY_PART.sub(r"\g<head>***", _USER_PART.sub(r"\g<head>:***@", uri))
