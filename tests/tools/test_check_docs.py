"""What ``make check`` refuses in a page, planted one fault at a time."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_docs", ROOT / "tools" / "check_docs.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


check_docs = load()


def faults(root: Path, text: str) -> list[str]:
    """What is said about a page of this text, in a repository of one script, one recipe and a Makefile."""
    for folder in ("docs", "benchmarks", "training/recipes"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "Makefile").write_text("check: all ## all\nall:\n")
    (root / "training/recipes/source-only.toml").write_text("")
    (root / "benchmarks/shared.py").write_text("parser.add_argument('--seed', type=int)\n")
    (root / "benchmarks/soak.py").write_text("from shared import parser\nparser.add_argument('--minutes')\n")
    (root / "docs/other.md").write_text("# Other\n\n## Two words, `code`\n")
    (root / "docs/page.md").write_text(f"# Page\n\n{text}\n")
    return [str(fault).partition(": ")[2] for fault in check_docs.check(root)]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("Back after @RESTARTS@ s.", "placeholder @RESTARTS@"),
        ("TODO: measure", "placeholder TODO"),
        ("| p50 | <figure> |", "placeholder <figure>"),
        ("[a page](gone.md)", "dead link gone.md: no such file"),
        ("![a picture](gone.png)", "dead link gone.png"),
        ("[up](../../outside.md)", "dead link ../../outside.md"),
        ("[a heading](other.md#three-words)", "dead link other.md#three-words: no heading of other.md"),
        ("[here](#nowhere)", "dead link #nowhere"),
        ("See `tests/gone.py`.", "tests/gone.py is not in the repository"),
        ("    rtda-deploy runn model.onnx", "there is no verb runn"),
        ("    rtda-deploy data chek x", "there is no verb chek"),
        ("    $ rtda-deploy run --camra 0", "No such option: --camra"),
        ("    X=1 .venv/bin/rtda-deploy verify a.pth", "Missing argument"),
        ("    python -m rtda_deploy run --max-frames many", "Invalid value for '--max-frames'"),
        ("    rtda-deploy doctor && rtda-deploy eval", "`rtda-deploy eval`: Missing"),
        ("```\nrtda-deploy bench m.onnx \\\n    --rat 30\n```", "--rat"),
        ("    rtda-deploy train source-onli", "there is no recipe source-onli"),
        ("    rtda-deploy eval last.pth --data 'open", "cannot be typed in a shell"),
        ("    rtda-deploy run clip.mp4 --in-flight 2", "clip.mp4 is no model"),
        ("Try `rtda-deploy export --presicion fp16`.", "No such option: --presicion"),
        ("    python benchmarks/gone.py", "benchmarks/gone.py is not in the repository"),
        ("    python benchmarks/soak.py --hours 1", "it has no option --hours"),
        ("    make nothing", "the Makefile has no nothing"),
        ("```python\nwith x as y\n```", "this Python does not parse"),
    ],
)
def test_a_fault_of_a_page_is_found_once(tmp_path: Path, text: str, fault: str) -> None:
    found = faults(tmp_path, text)
    assert len(found) == 1 and fault in found[0], found


def test_what_is_right_is_let_through(tmp_path: Path) -> None:
    text = """
[other](other.md#two-words-code) [elsewhere](https://example.com/gone#x) [here](#page)
`rtda-deploy export`, `make x=y check`

    RTDA_DATA=DATA rtda-deploy train source-only --set steps=4 > log.txt   # a remark; rtda-deploy nonsense
    python benchmarks/soak.py --minutes 30 --seed 1 | head

```python
with Pipeline.open("model.onnx") as pipeline: ...
```
"""
    assert faults(tmp_path, text) == []


def test_make_check_asks_it() -> None:
    assert "tools/check_docs.py" in (ROOT / "Makefile").read_text().partition("\ncheck:")[2].partition("\n\n")[0]
