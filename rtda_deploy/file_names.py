"""Names that a user's file gives and that become files or folders of ours."""

from __future__ import annotations

from rtda_deploy.errors import ConfigError

__all__ = ["check_file_name"]

_LONGEST = 100  # bytes; a file's name has 255, and ours add words to it


def check_file_name(name: str, what: str) -> str:
    """``name``, if it can be a part of a file's name and leads to no other folder.

    Args:
        name: Such as a stage's.
        what: What it names, for the message.

    Raises:
        ConfigError: If it is empty, dots alone, too long, or holds a separator or a character that is not printed.
    """
    if not name.strip(". "):
        problem = "is nothing but dots and spaces" if name else "is empty"
    elif "/" in name or "\\" in name:
        problem = "holds a separator of folders"
    elif not name.isprintable() or name != name.strip():
        problem = "holds a character that is not printed, or a space at an end"
    elif len(name.encode("utf-8", "surrogateescape")) > _LONGEST:
        problem = f"is longer than {_LONGEST} bytes"
    else:
        return name
    raise ConfigError(
        f"{what} {name!r} {problem}: files are named after it", hint="letters, digits, - and _ make a good name"
    )
