"""Hold every Markdown page against the repository; part of ``make check``.

    python tools/check_docs.py [FOLDER]

Refused are placeholders, links to files and headings that are not there, files named in back quotes that are not there,
and commands that would not be understood: each ``rtda-deploy`` line is parsed by the real command line, without running
it; each ``python benchmarks/x.py`` names a script and options that its parser adds; each ``make target`` is in the
Makefile; Python examples parse. One line a fault on stdout; exit code 1 where there is one.
"""

from __future__ import annotations

import ast
import functools
import os
import re
import shlex
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Optional

_NOT_OURS = {"build", "dist", "node_modules", "runs"}
_PLACEHOLDER = re.compile(r"@[A-Z][A-Z0-9_]*@|\b(?:TODO|TBD|FIXME|XXX)\b|<(?:figure|number|value|measured)s?>")
_FENCE = re.compile(r"^\s*(```+|~~~+)\s*(\w*)")
_SPAN = re.compile(r"(`+)(.+?)\1")
_LINK = re.compile(r"\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)|^\[[^\]]+\]:\s*(\S+)|(?:src|href)=\"([^\"]+)\"")
_ELSEWHERE = re.compile(r"^(?:[a-z][a-z0-9+.-]*:|//)")
_HEADING = re.compile(r"^#{1,6}\s+(.*?)\s*#*$")
_REPOSITORY_FILE = re.compile(
    r"(?:benchmarks|docker|docs|export|rtda_deploy|runtime|tests|tools|training)/[\w./-]*\.(?:py|md|toml|txt|json|cu)"
)


class Line(NamedTuple):
    """One line of a page.

    Attributes:
        number: From 1.
        text: What stands there; inside a code block without its indent.
        block: The language of the code block it is in, empty where none is named; None: prose.
    """

    number: int
    text: str
    block: Optional[str]


def check(root: Path) -> list[str]:
    """Every fault of every page below ``root``, as ``page:line: what is wrong``."""
    found = []
    for page in pages(root):
        lines = list(read_lines(page.read_text(encoding="utf-8")))
        for number, fault in sorted(_faults(root, page, lines)):
            found.append(f"{page.relative_to(root)}:{number}: {fault}")
    return found


def pages(root: Path) -> list[Path]:
    """The Markdown files of the repository, but for hidden folders and what is built."""
    found = []
    for folder, below, names in os.walk(root):
        below[:] = [name for name in below if not name.startswith(".") and name not in _NOT_OURS]
        found += [Path(folder, name) for name in names if name.endswith(".md")]
    return sorted(found)


def read_lines(text: str) -> Iterator[Line]:
    """The lines with what they are; an indented block stands after an empty line, as Markdown has it."""
    fence, language, indented, empty = "", "", False, True
    for number, line in enumerate(text.splitlines(), 1):
        opened = _FENCE.match(line)
        if fence:
            if line.strip() == fence:
                fence = ""
            else:
                yield Line(number, line, language)
        elif opened:
            fence, language = opened.group(1), opened.group(2)
        else:
            indented = line.startswith("    ") and (indented or empty)
            yield Line(number, line[4:], "") if indented else Line(number, line, None)
        empty = not line.strip()


def _faults(root: Path, page: Path, lines: list[Line]) -> Iterator[tuple[int, str]]:
    for line in lines:
        for placeholder in _PLACEHOLDER.findall(line.text):
            yield line.number, f"placeholder {placeholder}: fill it in or take it out"
        if line.block is None:
            yield from ((line.number, fault) for fault in _prose_faults(root, page, line.text))
    for number, language, text in _blocks(lines):
        if language == "python":
            yield from _python_faults(number, text)
        elif language in ("", "sh", "bash", "console"):
            yield from _shell_faults(root, number, text)


def _prose_faults(root: Path, page: Path, text: str) -> Iterator[str]:
    spans = [found.group(2).strip() for found in _SPAN.finditer(text)]
    for groups in _LINK.findall(_SPAN.sub("", text)):
        yield from _link_faults(root, page, "".join(groups))
    for span in spans:
        for name in _REPOSITORY_FILE.findall(span):
            if not (root / name).exists():
                yield f"{name} is not in the repository"
        yield from _command_faults(root, span, whole=False)


def _link_faults(root: Path, page: Path, target: str) -> Iterator[str]:
    if _ELSEWHERE.match(target):
        return
    name, _, anchor = target.partition("#")
    file = page.parent / name if name else page
    if not file.exists():
        yield f"dead link {target}: no such file"
    elif root.resolve() not in (file.resolve(), *file.resolve().parents):
        yield f"dead link {target}: outside the repository"
    elif anchor and file.suffix == ".md" and anchor not in _anchors(file):
        yield f"dead link {target}: no heading of {file.name} has that name"


@functools.lru_cache(maxsize=None)
def _anchors(page: Path) -> set[str]:
    """What GitHub calls the headings of a page."""
    found: set[str] = set()
    for line in read_lines(page.read_text(encoding="utf-8")):
        heading = _HEADING.match(line.text) if line.block is None else None
        if heading:
            words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading.group(1)).lower()
            name = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
            same = sum(1 for other in found if re.fullmatch(re.escape(name) + r"(-\d+)?", other))
            found.add(f"{name}-{same}" if same else name)
    return found


def _blocks(lines: list[Line]) -> Iterator[tuple[int, str, str]]:
    """First line's number, language and text of each code block."""
    block: list[Line] = []
    for line in [*lines, Line(0, "", None)]:
        if block and (line.block is None or line.number != block[-1].number + 1):
            yield block[0].number, block[0].block or "", "\n".join(part.text for part in block)
            block = []
        if line.block is not None:
            block.append(line)


def _python_faults(number: int, text: str) -> Iterator[tuple[int, str]]:
    try:
        ast.parse(textwrap.dedent(text))
    except SyntaxError as err:
        yield number + (err.lineno or 1) - 1, f"this Python does not parse: {err.msg}"


def _shell_faults(root: Path, number: int, text: str) -> Iterator[tuple[int, str]]:
    joined = ""
    for count, line in enumerate(text.splitlines()):
        joined += line.rstrip()
        if joined.endswith("\\"):
            joined = joined[:-1] + " "
            continue
        for fault in _command_faults(root, joined, whole=True):
            yield number + count, fault
        joined = ""


def _command_faults(root: Path, text: str, *, whole: bool) -> Iterator[str]:
    """What is wrong with the commands of one line. ``whole``: it is meant to be typed, so nothing may be missing."""
    if not re.search(r"\b(rtda-deploy|rtda_deploy|benchmarks|make)\b", text):
        return
    try:
        commands = list(_commands(text))
    except ValueError as err:  # a quote that is not closed
        if re.match(r"\W*(rtda-deploy|make|python)\b", text):
            yield f"cannot be typed in a shell ({err}): {text.strip()}"
        return
    for words in commands:
        program, rest = Path(words[0]).name, words[1:]
        if "-m" in rest and "rtda_deploy" in rest:
            program, rest = "rtda-deploy", rest[rest.index("rtda_deploy") + 1 :]
        if program == "rtda-deploy":
            yield from _verb_faults(root, rest, whole)
        elif program == "make":
            yield from _make_faults(root, rest)
        elif program.startswith("python") and rest and rest[0].startswith("benchmarks/"):
            yield from _script_faults(root, rest[0], rest[1:])


def _commands(text: str) -> Iterator[list[str]]:
    """The words of each command: prompt, settings before it, and redirections taken away."""
    lexer = shlex.shlex(text.strip(), posix=True, punctuation_chars=";&|<>")
    lexer.whitespace_split, lexer.commenters = True, "#"
    words: list[str] = []
    for word in [*lexer, ";"]:
        if set(word) <= set(";&|<>"):
            words = words[1:] if words[:1] == ["$"] else words
            while words and (re.match(r"\w+=", words[0]) or words[0] in ("sudo", "exec", "time")):
                words = words[1:]
            if words:
                yield words
            words = ["#to"] if set(word) <= set("<>") else []  # a file's name follows, no command
        else:
            words.append(word)


def _verb_faults(root: Path, words: list[str], whole: bool) -> Iterator[str]:
    typed = "rtda-deploy " + " ".join(words)
    command, rest = _command_line(), words
    while hasattr(command, "commands"):
        name = next((word for word in rest if not word.startswith("-")), None)
        if name is None:
            return
        if name not in command.commands:
            yield f"`{typed}`: there is no verb {name}"
            return
        rest = rest[rest.index(name) + 1 :]
        command = command.commands[name]
    fault = _parse(command, rest, whole) or _no_model(words)
    if fault:
        yield f"`{typed}`: {fault}"
    elif words[:1] == ["train"]:
        yield from _recipe_faults(root, typed, rest)


def _no_model(words: list[str]) -> str:
    """``run clip.mp4`` parses, and would take the clip for the model."""
    if words[:1] not in (["run"], ["bench"]) or len(words) < 2 or words[1].startswith("-"):
        return ""
    return "" if Path(words[1]).suffix in ("", ".onnx", ".engine") else f"{words[1]} is no model"


def _parse(command: Any, words: list[str], whole: bool) -> str:
    """What the command line says to these words; empty where it takes them."""
    if "--help" in words:
        return ""
    try:
        command.make_context("rtda-deploy", list(words))
    except Exception as err:  # typer's own, wherever this version of it keeps them
        told = getattr(err, "format_message", None)
        if told is None:
            raise
        text = str(told())
        return "" if not whole and re.match(r"Missing|.* requires an? argument", text) else text
    return ""


@functools.lru_cache(maxsize=None)
def _command_line() -> Any:
    import typer

    from rtda_deploy.cli.app import build_app

    return typer.main.get_command(build_app())  # type: ignore[arg-type]


def _recipe_faults(root: Path, typed: str, words: list[str]) -> Iterator[str]:
    """The recipe's name, where it is one of ours and no path."""
    name = words[0] if words and not words[0].startswith("-") else ""
    if re.fullmatch(r"(ablations/)?[a-z][a-z0-9-]*", name):
        folder = root / "training" if "/" in name else root / "training" / "recipes"
        if folder.exists() and not (folder / f"{name}.toml").exists():
            yield f"`{typed}`: there is no recipe {name}"


def _make_faults(root: Path, words: list[str]) -> Iterator[str]:
    makefile = root / "Makefile"
    targets = set(re.findall(r"^([\w-]+):", makefile.read_text(), re.MULTILINE)) if makefile.exists() else set()
    for word in words:
        if re.fullmatch(r"[a-z][a-z-]*", word) and word not in targets:
            yield f"`make {' '.join(words)}`: the Makefile has no {word}"


def _script_faults(root: Path, name: str, words: list[str]) -> Iterator[str]:
    script = root / name
    parts = sorted(script.glob("*.py")) if script.is_dir() else [script]
    if not all(part.exists() for part in parts) or not parts:
        yield f"{name} is not in the repository"
        return
    known = set().union(*map(_options, parts))
    for word in words:
        option = word.partition("=")[0]
        if option.startswith("--") and option not in known:
            yield f"`python {name} {' '.join(words)}`: it has no option {option}"


@functools.lru_cache(maxsize=None)
def _options(script: Path) -> set[str]:
    """The options that a script and what it imports from its own folder add to a parser; nothing is imported here."""
    tree = ast.parse(script.read_text(encoding="utf-8"))
    found = {"--help"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "add_argument":
            found |= {
                word.value for word in node.args if isinstance(word, ast.Constant) and isinstance(word.value, str)
            }
        names = [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        for name in names:
            beside = script.with_name(f"{name}.py")
            if beside.exists() and beside.name != "__main__.py":
                found |= _options(beside)
    return found


def main(words: list[str]) -> int:
    root = Path(words[0]) if words else Path(__file__).resolve().parents[1]
    found = check(root)
    for fault in found:
        print(fault)
    print(f"{len(pages(root))} pages, {len(found)} faults", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
