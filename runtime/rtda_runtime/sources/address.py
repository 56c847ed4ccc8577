"""Addresses of sources, fit to be shown: without their passwords."""

from __future__ import annotations

import re

__all__ = ["mask_password"]

# Passwords are typed without escapes and hold @, /, quotes and spaces too. So one goes up to the last @ (in a pipeline:
# of its element), a value up to the next name=. That masks host:554/a@b as well: rather a port than a password.
_USER_PART = re.compile(
    r"""(?P<head>^(?!gst:|/)[^\s:]*(?=:(?!//))  # user:password@host, rtsp:/user:password@host
      | (?::/+|//)[^:]*)                        # ://user, also where the user is an e-mail address
    :(?:(?!\s!\s).)*@""",
    re.VERBOSE | re.DOTALL,
)
_VALUE = re.compile(
    r"""(?P<head>(?:password|passwd|passphrase|pwd|loginpas|token|secret|api_?key|access_?key
      | (?<![a-z0-9])(?:pass|pw|psw|auth))\d*\s*=\s*)
    (?!\s|$)(?:(?P<quote>["'])(?:\\.|(?!(?P=quote))[^\\])*(?P=quote)(?=[&;\s]|$)
      | .*?(?=[&;\s][\w.-]+\s*=|_channel=|\s!\s|$))""",
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)


def mask_password(text: str) -> str:
    """``rtsp://user:secret@host/1`` as ``rtsp://user:***@host/1``; also ``?password=``, ``?token=`` and the like.

    Works on any text that has an address in it, such as a GStreamer pipeline or an error message. Where it is not clear
    what belongs to a password, more is masked.
    """
    return _USER_PART.sub(r"\g<head>:***@", _VALUE.sub(r"\g<head>***", text))
