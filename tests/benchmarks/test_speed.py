"""speed and speed_page: what fails is told from what misses a goal; page and picture of small made-up figures."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
SPREAD = {"ratio": 2.0, "low": 1.9, "high": 2.1}
MACHINE: Dict[str, Any] = {
    "environment": {
        "cpu": "Test CPU",
        "cores": 2,
        "os": "Debian 12",
        "python": "3.11.7",
        "openvino": "2026.4.1-17-abc",
    },
    "conditions": {"other_cores": 0.25},
}


@pytest.fixture()
def pages(benchmark_module: Callable[[str], Any]) -> Any:
    return benchmark_module("speed_page")


def way(name: str, group: str, precision: str, stages: List[Optional[float]], ratio: Optional[float]) -> Dict[str, Any]:
    before, network, after = stages
    near = {"ratio": ratio, "low": ratio and ratio - 0.01, "high": ratio and ratio + 0.01}
    spent = {"preprocess_ms": before, "network_ms": network, "postprocess_ms": after}
    library = "model.onnx, OpenVINO 2026.4.1 on cpu in fp32"
    facts = {"library": library, "ms": sum(stage or 0.0 for stage in stages)}
    agreement = None if group == "bare" else 0.9987
    return {"way": name, "group": group, "precision": precision, "agreement": agreement, **facts, **spent, **near}


def everything() -> Dict[str, Any]:
    """Figures of each benchmark, all of them different enough to be told apart on the page."""
    ways = [
        way("their plain way", "peer", "fp32", [12.0, 300.0, 90.0], 0.76),
        way("ours fp32", "ours", "fp32", [2.0, 295.0, 3.0], 1.07),
        way("session alone", "bare", "fp32", [0.0, 290.0, None], None),
        way("their best way", "peer, tuned", "fp32", [4.0, 298.0, 18.0], 1.0),
        way("ours int8", "ours", "int8", [2.0, 80.0, 3.0], 3.76),
    ]
    goals = [
        {"goal": "ours fp32", "wanted": ">= 1.05", "value": 1.0712, "met": True},
        {"goal": "ours int8", "wanted": ">= 3.9", "value": 3.7641, "met": False},
    ]
    peaks = {"fp32": 200.0, "int8": 800.0}
    facts = {"backbone": "resnet18", "gflop": 51.3, "floor_ms": 256.5, "peak_gflops": peaks, "goals": goals}
    networks = [{"variant": name, "ways": copy.deepcopy(ways), **facts} for name in ("rtda", "paper")]
    weights = {"rtda": "trained", "paper": "random"}
    graph = {"library": "OpenVINO", "graph": "rewritten", "gmacs": 25.63, "ms": 280.0, "differs": 2e-6, **SPREAD}
    option = {"busy": 1, "library": "OpenVINO", "option": "ours", "ms": 80.0, "cpu_ms": 150.0, **SPREAD}
    camera = {"cameras": 4, "total_fps": 13.0, "least_fps": 3.0, "most_fps": 3.5, "age_p95_ms": 90.0}
    start = {"python_ms": 15.0, "import_ms": 170.0, "open_ms": 300.0, "mask_ms": 1600.0, "total_ms": 2085.0}
    start.update(low=2000.0, high=2222.0, masks=50, peak_1_mb=333.0, peak_mb=344.0)
    scores = {"miou_fp32": 36.94, "miou_int8": 36.31, "lost": 0.63, "agreement": 0.993, "goal": 0.5, "met": False}
    scored = {"runs_in": "OpenVINO", "pictures": 233, "size": "480x360", **scores, **SPREAD}
    resized = {"frame": "1280x720", "threads": 2, "ms": 1.5, "low": 1.9, "high": 2.6}
    shared = {"size": "1024x512", "rounds": 9, "threads": 2}
    found: Dict[str, Any] = {
        "peers": {**shared, "frame": "1280x720", "networks": networks, "weights": weights},
        "preprocess": {"rows": [{**resized, "way": "ours", "ratio": 2.12}], "goal": 2.5},
        "upsample": {"rows": [{"size": "1024x512", "way": "ours", "ms": 1.6, "differs": 1e-6, **SPREAD}]},
        "rewrites": {**shared, "networks": [{"backbone": "resnet18", "variant": "paper", "rows": [graph]}]},
        "cpu_threads": {**shared, "rows": [option]},
        "cameras": {"cameras": [camera], "free": [camera], "camera_fps": 30.0, "fair": 0.86, "goal": 0.8},
        "first_mask": {"rows": [{"library": "auto", "start": "first", **start}]},
        "export_precision": {
            **shared,
            "data": "camvid:/home/someone",
            "calibration_frames": 32,
            "end_to_end": [scored],
        },
    }
    found["upsample"].update(goal=10.0, logits=[19, 64, 128], rounds=25)
    found["cameras"]["in_flight"] = [{"in_flight": 2, "fps": 14.0, "provider": "openvino", **SPREAD}]
    for made in found.values():
        made.update(copy.deepcopy(MACHINE))
    found["preprocess"]["environment"] = {"cpu": "Another CPU", "cores": 2, "os": "Debian 12"}
    return found


def test_the_page_is_a_function_of_the_figures_alone(pages: Any) -> None:
    found = everything()
    text = pages.page(found)
    assert text == pages.page(json.loads(json.dumps(found))) and found == everything()
    assert text.endswith("meanwhile.\n") and "\n\n\n" not in text and "someone" not in text
    assert all(f"\n    {section.command}\n" in text for section in pages.SECTIONS.values())


@pytest.mark.parametrize(
    "row",
    [
        "**5 of 9 goals met.**",
        "| BiSeNet-R18 `rtda`: ours fp32 | >= 1.05 | 1.071 | met |",
        "| BiSeNet-R18 `paper`: ours int8 | >= 3.9 | 3.764 | **MISSED** |",
        "| frame to network input, against `cv2.resize` alone | <= 2.5x | 2.12x | met |",
        "| mask of 1024x512, against `cv2.resize` per class and argmax | >= 10x | 2.0x | **MISSED** |",
        "| BiSeNet-R18 `paper`: rewritten graphs differ, of the range | <= 1e-4 | 2e-06 | met |",
        "| INT8 in OpenVINO, mIoU lost end to end, points | <= 0.5 | 0.63 | **MISSED** |",
        "| BiSeNet-R18 `paper` | OpenVINO | rewritten | 25.63 | 280 | 2.00x (1.90 to 2.10) | 2e-06 |",
        "| OpenVINO | 233 | 480x360 | 36.94 | 36.31 | 0.63 | 99.30 % | 2.00x (1.90 to 2.10) |",
        "| 1280x720 | ours | 2 | 1.50 | 2.12x (1.90 to 2.60) |",
        "| 1024x512 | ours | 1.60 | 2.0x (1.9 to 2.1) | 1.0e-06 |",
        "| 1 | OpenVINO | ours | 80.0 | 150 | 2.00x (1.90 to 2.10) |",
        "| 4 | 13.0 | 3.0 to 3.5 | 90 ms |",
        "| openvino | 2 | 14.0 | 2.00x (1.90 to 2.10) |",
        "| auto | first | 15 | 170 | 300 | 1600 | **2085** (2000 to 2222) | 333 MB | 344 MB |",
        "Machine: 2 cores of Test CPU, Debian 12, Python 3.11.7, OpenVINO 2026.4.1.",
        "Measured on 2 cores of Another CPU, Debian 12. Other programs took 0.25 cores meanwhile.",
    ],
)
def test_each_figure_has_its_line(pages: Any, row: str) -> None:
    assert f"\n{row}\n" in pages.page(everything())


def test_ways_are_ordered_ours_tuned_peers_peers_bare_and_ours_are_bold(pages: Any) -> None:
    text = pages.page({"peers": everything()["peers"]})
    assert "9 rounds, 2 threads, weights: trained for `rtda`, random for `paper`." in text
    rows = text[text.index("### BiSeNet-R18 `rtda`") : text.index("### BiSeNet-R18 `paper`")].splitlines()
    cells = [[cell.strip() for cell in row.split("|")[1:-1]] for row in rows if row.startswith("|")][2:]
    assert [row[0] for row in cells] == [
        "**ours int8**",
        "**ours fp32**",
        "their best way",
        "their plain way",
        "session alone",
    ]
    assert cells[1][2:8] == ["fp32", "OpenVINO 2026.4.1 on cpu in fp32", "**300**", "2.00", "295", "3.00"]
    assert cells[1][8:] == ["**1.07x** (1.06 to 1.08)", "1.15x", "99.87 %"]
    assert cells[4][4:] == ["290", "–", "290", "–", "–", "1.13x", "–"]
    assert cells[0][9] == "1.25x", "the share of the floor is that of its own precision"


@pytest.mark.parametrize("missing", sorted(everything()))
def test_what_was_not_measured_leaves_a_line_with_its_command(pages: Any, missing: str) -> None:
    found = everything()
    del found[missing]
    text = pages.page(found)
    assert f"Not measured. The command is `{pages.SECTIONS[missing].command}`." in text
    assert text.count("Not measured") == 1 and text.count("\n## ") == 8


def test_short_forms_are_marked(pages: Any) -> None:
    found = everything()
    assert "--quick" not in pages.page(found)
    found["peers"]["quick"] = True
    assert "**Short forms (`--quick`)" in pages.page(found)


def test_a_damaged_or_empty_file_is_refused_with_its_command(pages: Any, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"holds none of peers\.json"):
        pages.load(tmp_path)
    for content in ("", '{"rows": ['):
        (tmp_path / "upsample.json").write_text(content)
        with pytest.raises(SystemExit, match=r"make it again: python benchmarks/upsample\.py --json"):
            pages.load(tmp_path)


def test_the_same_figures_give_the_same_page_and_picture(pages: Any, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the picture is drawn with it")
    for name, made in everything().items():
        (tmp_path / f"{name}.json").write_text(json.dumps(made))
    command = [sys.executable, str(FOLDER / "speed_page.py"), str(tmp_path), "--out"]
    for out in ("a", "b"):
        done = subprocess.run([*command, str(tmp_path / out)], capture_output=True, text=True, check=True)
    assert "MISSED INT8 in OpenVINO" in done.stdout
    assert (tmp_path / "a/speed.md").read_text(encoding="utf-8") == pages.page(everything())
    first = (tmp_path / "a/speed.svg").read_bytes()
    assert first == (tmp_path / "b/speed.svg").read_bytes() and b'style="fill: #ffffff"' in first.split(b"axes_1")[0]
    found = everything()
    found["peers"]["networks"][0]["ways"][1]["ms"] += 50
    assert pages.save_picture(found, tmp_path / "c.svg") and (tmp_path / "c.svg").read_bytes() != first
    assert not pages.save_picture({"upsample": found["upsample"]}, tmp_path / "d.svg")
    assert not (tmp_path / "d.svg").exists() and "speed.svg" not in pages.page(found, picture=False)


def test_bars_go_by_precision_then_speed_and_bare_networks_come_last(benchmark_module: Callable[[str], Any]) -> None:
    networks = everything()["peers"]["networks"]
    networks[1]["ways"].append(way("only here", "peer", "bf16", [1.0, 150.0, 1.0], 2.0))
    ways = ("ours fp32", "their best way", "their plain way", "session alone")
    expected = [*(("fp32", name) for name in ways), ("bf16", "only here"), ("int8", "ours int8")]
    assert benchmark_module("speed_picture").bar_order(networks) == expected


@pytest.fixture()
def folder(tmp_path: Path) -> Path:
    """A copy of ``speed.py`` beside benchmarks that do as they are told, and a page writer that notes what there is."""
    (tmp_path / "speed.py").write_text((FOLDER / "speed.py").read_text(encoding="utf-8"), encoding="utf-8")
    programs = {
        "upsample": 'print("{}")',
        "preprocess": 'import sys; print("{}"); sys.exit(1)',
        "cameras": 'raise SystemExit("it broke")',
        "speed_page": "import pathlib, sys; print(sorted(p.stem for p in pathlib.Path(sys.argv[1]).glob('*.json')))",
    }
    for name, text in programs.items():
        (tmp_path / f"{name}.py").write_text(text, encoding="utf-8")
    return tmp_path


def run(folder: Path, only: str) -> Any:
    words: List[str] = [str(folder / "speed.py"), "--out", str(folder / "json"), "--only", only]
    return subprocess.run([sys.executable, *words], capture_output=True, text=True)


def test_a_missed_goal_is_on_the_page(folder: Path) -> None:
    done = run(folder, "upsample,preprocess")
    assert done.returncode == 1 and "not all goals were met: preprocess" in done.stderr
    assert done.stdout == "['preprocess', 'upsample']\n"


def test_what_failed_leaves_no_old_figures_and_what_was_not_run_does(folder: Path) -> None:
    (folder / "json").mkdir()
    for name in ("cameras", "peers"):
        (folder / "json" / f"{name}.json").write_text('{"old": 1}')
    done = run(folder, "upsample,cameras")
    assert done.returncode == 2 and "failed, and not on the page: cameras" in done.stderr and "FAILED" in done.stderr
    assert done.stdout == "['peers', 'upsample']\n"


def test_a_name_that_is_none_is_an_error(folder: Path) -> None:
    done = run(folder, "upsampel")
    assert done.returncode == 2 and "--only upsampel: known are upsample, " in done.stderr
