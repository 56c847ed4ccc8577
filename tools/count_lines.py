"""Lines of code per folder: without blank lines, comments and docstrings.

python tools/count_lines.py [FOLDER_OR_FILE]... [--at REVISION]
"""

import argparse
import ast
import io
import subprocess
import sys
import tokenize
from pathlib import Path
from typing import Dict, Iterator, List, Set, Tuple

ROOT = Path(__file__).resolve().parent.parent
PRODUCT = ("rtda_deploy", "training", "export", "runtime")
TESTS = ("tests",)
REST = ("benchmarks", "tools", "docker", "docs")
_LONG_FUNCTION = 60
_NO_CODE = (
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
)


def code_lines(text: str) -> Set[int]:
    """The numbers of the lines that hold code."""
    lines: Set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in _NO_CODE:
            lines.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            first = node.body[0] if node.body else None
            value = first.value if isinstance(first, ast.Expr) else None
            if first is not None and isinstance(value, ast.Constant) and isinstance(value.value, str):
                lines.difference_update(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    return lines


def long_functions(text: str) -> List[Tuple[str, int]]:
    """Functions of more than 60 lines of code, by name."""
    lines = code_lines(text)
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            size = len(lines & set(range(node.lineno, (node.end_lineno or node.lineno) + 1)))
            if size > _LONG_FUNCTION:
                found.append((node.name, size))
    return found


def _files(names: List[str], revision: str) -> Iterator[Tuple[str, str]]:
    """Path and text of each Python file that git tracks below some folders."""
    if revision:
        listed = _git("ls-tree", "-r", "--name-only", revision, "--", *names)
    else:
        listed = _git("ls-files", "--cached", "--others", "--exclude-standard", "--", *names)
    for path in sorted(set(listed.splitlines())):
        if path.endswith(".py"):
            if revision:
                yield path, _git("show", f"{revision}:{path}")
            elif (ROOT / path).is_file():
                yield path, (ROOT / path).read_text(encoding="utf-8")


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=str(ROOT), check=True, stdout=subprocess.PIPE).stdout.decode("utf-8")


def _table(names: List[str], revision: str) -> Tuple[int, int, List[str]]:
    """Modules and lines below some folders, and a line for each folder that holds modules."""
    folders: Dict[str, List[int]] = {}
    for path, text in _files(names, revision):
        folders.setdefault(str(Path(path).parent), []).append(len(code_lines(text)))
    rows = [f"{len(sizes):5d} {sum(sizes):7d}  {folder}" for folder, sizes in sorted(folders.items())]
    return sum(map(len, folders.values())), sum(sum(sizes) for sizes in folders.values()), rows


def main() -> None:
    """Print modules and lines of each folder, then sums, then functions of more than 60 lines."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="FOLDER_OR_FILE")
    parser.add_argument("--at", default="", metavar="REVISION", help="of this commit, not of the working tree")
    asked = parser.parse_args()
    groups = [("asked", asked.names)] if asked.names else []
    groups = groups or [("product", list(PRODUCT)), ("tests", list(TESTS)), ("rest", list(REST))]
    sums = []
    print("files   lines  folder")
    for name, folders in groups:
        modules, lines, rows = _table(folders, asked.at)
        print("\n".join(rows))
        sums.append(f"{modules:5d} {lines:7d}  {name}")
    print("\n".join(sums))
    for path, text in _files([folder for _, folders in groups for folder in folders], asked.at):
        for function, size in long_functions(text):
            print(f"{size:5d} lines in {path}: {function}()")


if __name__ == "__main__":
    sys.exit(main())
