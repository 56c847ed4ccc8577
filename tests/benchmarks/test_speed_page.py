"""speed_page and speed_picture: a page and a picture from small made-up figures."""

from __future__ import annotations

import copy
import importlib
import json
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
ENVIRONMENT = {"cpu": "Test CPU", "cores": 2, "os": "Debian 12", "python": "3.11.7", "openvino": "2026.4.1-17-abc"}


@pytest.fixture(scope="module")
def pages() -> Iterator[Any]:
    sys.path.insert(0, str(FOLDER))
    try:
        yield importlib.import_module("speed_page")
    finally:
        sys.path.remove(str(FOLDER))
        sys.modules.pop("speed_page", None)
        sys.modules.pop("speed_sections", None)


@pytest.fixture()
def sections(pages: Any) -> Any:
    return sys.modules["speed_sections"]


@pytest.fixture(scope="module")
def pictures() -> Iterator[Any]:
    pytest.importorskip("matplotlib", reason="the picture is drawn with it")
    sys.path.insert(0, str(FOLDER))
    try:
        yield importlib.import_module("speed_picture")
    finally:
        sys.path.remove(str(FOLDER))
        sys.modules.pop("speed_picture", None)


def way(name: str, group: str, precision: str, stages: List[Optional[float]], ratio: Optional[float]) -> Dict[str, Any]:
    before, network, after = stages
    spread = {"ratio": ratio, "low": None, "high": None}
    if ratio is not None:
        spread = {"ratio": ratio, "low": ratio - 0.01, "high": ratio + 0.01}
    return {
        "way": name,
        "group": group,
        "precision": precision,
        "library": "model.onnx, OpenVINO 2026.4.1 on cpu in fp32" if group == "ours" else "OpenVINO",
        "ms": sum(stage or 0.0 for stage in stages),
        "preprocess_ms": before,
        "network_ms": network,
        "postprocess_ms": after,
        "agreement": None if group == "bare" else 0.9987,
        **spread,
    }


def peers() -> Dict[str, Any]:
    ways = [
        way("their plain way", "peer", "fp32", [12.0, 300.0, 90.0], 0.76),
        way("ours fp32", "ours", "fp32", [2.0, 295.0, 3.0], 1.07),
        way("session alone", "bare", "fp32", [0.0, 290.0, None], None),
        way("their best way", "peer, tuned", "fp32", [4.0, 298.0, 18.0], 1.0),
        way("ours int8", "ours", "int8", [2.0, 80.0, 3.0], 3.76),
    ]
    goals = [
        {"goal": "ours fp32 over the best fp32 peer", "wanted": ">= 1.05", "value": 1.0712, "met": True},
        {"goal": "ours int8 over the best fp32 peer", "wanted": ">= 3.9", "value": 3.7641, "met": False},
    ]
    peaks = {"fp32": 200.0, "bf16": 400.0, "int8": 800.0}
    networks = [
        {"variant": variant, "backbone": "resnet18", "gflop": gflop, "floor_ms": gflop / 0.2, "peak_gflops": peaks,
         "ways": copy.deepcopy(ways), "goals": goals}
        for variant, gflop in (("rtda", 51.3), ("paper", 59.0))
    ]  # fmt: skip
    return {
        "environment": ENVIRONMENT, "conditions": {"other_cores": 0.25}, "rounds": 9, "frame": "1280x720",
        "size": "1024x512", "networks": networks, "threads": 2, "weights": {"rtda": "trained", "paper": "random"},
    }  # fmt: skip


def growth() -> Dict[str, Any]:
    libraries = ("ONNX Runtime", "OpenVINO")
    one = {"ratio": 1.0, "low": 1.0, "high": 1.0}
    return {
        "environment": ENVIRONMENT, "conditions": {"other_cores": 0.5}, "quick": False, "rounds": 9, "starts": 5,
        "threads": 2, "network": "1024x512",
        "batch": [{"library": name, "batch": n, "ms": 300.0 / n**0.1, **one} for name in libraries for n in (1, 8)],
        "size": {
            "rows": [
                {"library": name, "size": size, "pixels": pixels, "network_ms": 280 * pixels, "frame_ms": 290 * pixels,
                 "ratio": pixels, "low": 0.9 * pixels, "high": 1.1 * pixels}
                for name in libraries
                for size, pixels in (("512x256", 0.25), ("1024x512", 1.0), ("2048x1024", 4.0))
            ],
            "fits": [{"library": name, "network_exponent": 0.97, "frame_exponent": 0.94} for name in libraries],
            "base": "1024x512", "frame": "1280x720",
        },
        "backbone": [
            {"library": name, "backbone": backbone, "variant": "rtda", "gflop": gflop, "gflop_ratio": 1.0, "ms": 280.0,
             **one}
            for name in libraries
            for backbone, gflop in (("resnet18", 51.3), ("resnet101", None))
        ],
        "start": [
            {"library": name, "start": "first", "python_ms": 15.0, "import_ms": 170.0, "open_ms": 300.0,
             "mask_ms": 1600.0, "total_ms": 2085.0, "low": 2000.0, "high": 2222.0, "masks": 50, "peak_1_mb": 333.0,
             "peak_mb": 344.0, "resident_mb": 300.0}
            for name in (*libraries, "auto")
        ],
    }  # fmt: skip


def everything() -> Dict[str, Any]:
    spread = {"ratio": 2.0, "low": 1.9, "high": 2.1}
    rates = [
        {"cameras": n, "total_fps": 13.0, "least_fps": 12.0 / n, "most_fps": 14.0 / n, "age_p95_ms": 90.0 * n}
        for n in (1, 4)
    ]
    return {
        "peers": peers(),
        "preprocess": {
            "rows": [
                {"frame": "1280x720", "way": name, "threads": 2, "ms": 1.5, "ratio": ratio, "low": 1.9, "high": 2.6}
                for name, ratio in (("cv2.resize", 1.0), ("ours", 2.12), ("NumPy", 9.0))
            ],
            "goal": 2.5, "met": True, "environment": {**ENVIRONMENT, "cpu": "Another CPU"}, "conditions": {},
        },
        "upsample": {
            "rows": [{"size": "1024x512", "way": "ours", "ms": 1.6, "differs": 1e-6, **spread}],
            "goal": 10.0, "met": False, "logits": [19, 64, 128], "rounds": 25, "environment": ENVIRONMENT,
        },
        "rewrites": {
            "size": "1024x512", "threads": 2, "rounds": 15,
            "networks": [
                {"backbone": "resnet18", "variant": "paper", "met": True, "parts": {},
                 "rows": [{"library": "OpenVINO", "graph": "rewritten", "gmacs": 25.63, "ms": 280.0,
                           "differs": 2e-6, **spread}]}
            ],
        },
        "cpu_threads": {
            "size": "512x256", "rounds": 15,
            "rows": [{"busy": 1, "library": "OpenVINO", "option": "ours", "ms": 80.0, "cpu_ms": 150.0, **spread}],
        },
        "cameras": {
            "cameras": rates, "free": rates, "camera_fps": 30.0, "fair": 0.86, "goal": 0.8, "met": True,
            "in_flight": [{"in_flight": 2, "fps": 14.0, "provider": "openvino", **spread}],
        },
        "growth": growth(),
        "export_precision": {
            "data": "camvid:/home/someone/camvid", "size": "256x192", "calibration_frames": 32, "threads": 1,
            "end_to_end": [
                {"runs_in": "OpenVINO", "pictures": 233, "size": "480x360", "miou_fp32": 36.94, "miou_int8": 36.31,
                 "lost": 0.63, "agreement": 0.993, "ms_fp32": 40.0, "ms_int8": 11.0, "goal": 0.5, "met": False,
                 **spread}
            ],
        },
    }  # fmt: skip


def line(page: str, *words: str) -> str:
    """The one line that holds all the words."""
    (found,) = [text for text in page.splitlines() if all(word in text for word in words)]
    return found


def test_the_page_is_a_function_of_the_figures_alone(pages: Any) -> None:
    found = everything()
    text = pages.page(found)
    assert text == pages.page(json.loads(json.dumps(found))) and found == everything()
    assert text.endswith("\n") and not text.endswith("\n\n")


def test_goals_stand_first_with_their_figures_and_misses_are_bold(pages: Any) -> None:
    text = pages.page(everything())
    assert "**5 of 9 goals met.**" in text
    assert line(text, "`rtda`: ours fp32").endswith("| >= 1.05 | 1.071 | met |")
    assert line(text, "`paper`: ours int8").endswith("| >= 3.9 | 3.764 | **MISSED** |")
    assert line(text, "| frame to network input").endswith("| <= 2.5x | 2.12x | met |")
    assert line(text, "| mask of 1024x512").endswith("| >= 10x | 2.0x | **MISSED** |")
    assert line(text, "| INT8 in OpenVINO").endswith("| <= 0.5 | 0.63 | **MISSED** |")
    assert line(text, "| cameras on one engine").endswith("| >= 0.8 | 0.86 | met |")
    assert text.index("goals met") < text.index("## From frame to mask")


def test_ways_are_ordered_ours_tuned_peers_peers_bare_and_ours_are_bold(pages: Any, sections: Any) -> None:
    ordered = [entry["way"] for entry in sections.sorted_ways(peers()["networks"][0])]
    assert ordered == ["ours int8", "ours fp32", "their best way", "their plain way", "session alone"]
    text = pages.page({"peers": peers()})
    assert "9 rounds, 2 threads, weights: trained for `rtda`, random for `paper`." in text
    rtda = text[text.index("### BiSeNet-R18 `rtda`") : text.index("### BiSeNet-R18 `paper`")]
    assert line(rtda, "ours fp32") == (
        "| **ours fp32** | ours | fp32 | OpenVINO 2026.4.1 on cpu in fp32 | **300** | 2.00 | 295 | 3.00"
        " | **1.07x** (1.06 to 1.08) | 1.15x | 99.87 % |"
    )
    assert line(rtda, "session alone").endswith("| 290 | – | 290 | – | – | 1.13x | – |")


def test_the_share_of_the_floor_is_that_of_the_ways_own_precision(sections: Any) -> None:
    network = peers()["networks"][0]
    assert sections._way(network["ways"][4], network)[9] == f"{80.0 / (51.3 / 800.0 * 1e3):.2f}x" == "1.25x"
    network["peak_gflops"].pop("int8")
    assert sections._way(network["ways"][4], network)[9] == "–"


@pytest.mark.parametrize("missing", sorted(everything()))
def test_what_was_not_measured_leaves_a_line_with_its_command(pages: Any, missing: str) -> None:
    found = everything()
    del found[missing]
    text = pages.page(found)
    assert f"Not measured. The command is `{pages.COMMANDS[missing]}`." in text
    assert text.count("Not measured") == 1 and text.count("\n## ") == 8


def test_each_section_says_which_command_made_it(pages: Any) -> None:
    text = pages.page(everything())
    assert all(f"\n    {command}\n" in text for command in pages.COMMANDS.values())


@pytest.mark.parametrize("part", ["size", "batch", "backbone", "start"])
def test_a_part_of_growth_that_is_missing_is_named(pages: Any, part: str) -> None:
    found = {"growth": growth()}
    del found["growth"][part]
    assert f"Not measured: {part}. The command is `python benchmarks/growth.py --part {part}`." in pages.page(found)


def test_growth_shows_exponents_phases_and_memory(pages: Any) -> None:
    text = pages.page({"growth": growth()})
    assert "ONNX Runtime 0.97 for the network, 0.94 for the whole way" in text
    row = "| auto | first | 15 | 170 | 300 | 1600 | **2085** (2000 to 2222) | 333 MB | 344 MB |"
    assert row in text and "| 1 mask | 50 masks |" in text
    assert "| ONNX Runtime | R101 `rtda` | – | 1.00x | 280 | 1.00x (1.00 to 1.00) |" in text


def test_rewrites_and_thread_options_are_rows(pages: Any) -> None:
    text = pages.page(everything())
    row = "| BiSeNet-R18 `paper` | OpenVINO | rewritten | 25.63 | 280 | 2.00x (1.90 to 2.10) | 2e-06 |"
    assert (
        row in text and "| BiSeNet-R18 `paper`: rewritten graphs differ, of the range | <= 1e-4 | 2e-06 | met |" in text
    )
    assert "| 1 | OpenVINO | ours | 80.0 | 150 | 2.00x (1.90 to 2.10) |" in text


def test_a_figure_of_another_machine_says_which(pages: Any) -> None:
    text = pages.page(everything())
    assert "Machine: 2 cores of Test CPU, Debian 12, Python 3.11.7, OpenVINO 2026.4.1." in text
    assert text.count("Measured on 2 cores of Another CPU") == 1
    assert "Other programs took 0.25 cores meanwhile." in text


def test_no_path_of_the_machine_reaches_the_page(pages: Any) -> None:
    assert "someone" not in pages.page(everything())


def test_short_forms_are_marked(pages: Any) -> None:
    found = everything()
    assert "--quick" not in pages.page(found)
    found["growth"]["quick"] = True
    assert "**Short forms (`--quick`)" in pages.page(found)


def test_a_damaged_or_empty_file_is_refused_with_its_command(pages: Any, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"holds none of peers\.json"):
        pages.load(tmp_path)
    for content in ("", '{"rows": ['):
        (tmp_path / "upsample.json").write_text(content)
        with pytest.raises(SystemExit, match=r"make it again: python benchmarks/upsample\.py --json"):
            pages.load(tmp_path)


def test_the_command_writes_the_page_and_the_picture(
    pages: Any, pictures: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, made in everything().items():
        (tmp_path / f"{name}.json").write_text(json.dumps(made))
    monkeypatch.setattr(sys, "argv", ["speed_page.py", str(tmp_path), "--out", str(tmp_path / "out")])
    assert pages.main() == 0
    assert (tmp_path / "out" / "speed.md").read_text(encoding="utf-8") == pages.page(everything())
    assert "![" in pages.page(everything()) and (tmp_path / "out" / "speed.svg").stat().st_size > 10_000
    assert "MISSED INT8 in OpenVINO" in capsys.readouterr().out


# the picture


def test_bars_go_by_precision_then_speed_and_bare_networks_come_last(pictures: Any) -> None:
    networks = peers()["networks"]
    networks[1]["ways"].append(way("only here", "peer", "bf16", [1.0, 150.0, 1.0], 2.0))
    assert pictures.bar_order(networks) == [
        ("fp32", "ours fp32"),
        ("fp32", "their best way"),
        ("fp32", "their plain way"),
        ("fp32", "session alone"),
        ("bf16", "only here"),
        ("int8", "ours int8"),
    ]


def test_the_same_figures_give_the_same_picture_and_others_another(pictures: Any, tmp_path: Path) -> None:
    found = everything()
    for name in ("a.svg", "b.svg"):
        assert pictures.save_picture(found, tmp_path / name)
    found["peers"]["networks"][0]["ways"][1]["ms"] += 50
    pictures.save_picture(found, tmp_path / "c.svg")
    first, second, third = ((tmp_path / name).read_bytes() for name in ("a.svg", "b.svg", "c.svg"))
    assert first == second != third


@pytest.mark.parametrize("only", ["peers", "cameras", "size", "batch", "backbone", "start"])
def test_each_panel_can_stand_alone(pictures: Any, tmp_path: Path, only: str) -> None:
    found = {only: everything()[only]} if only in ("peers", "cameras") else {"growth": {only: growth()[only]}}
    assert pictures.save_picture(found, tmp_path / "one.svg")
    root = ElementTree.parse(tmp_path / "one.svg").getroot()
    width, height = (float(root.attrib[side].rstrip("pt")) for side in ("width", "height"))
    assert width == 720 and height > 150  # ten inches


def test_the_picture_has_a_ground_of_its_own(pictures: Any, tmp_path: Path) -> None:
    pictures.save_picture(everything(), tmp_path / "a.svg")
    ground = ElementTree.parse(tmp_path / "a.svg").getroot().find(".//*[@id='patch_1']/*")
    assert ground is not None and "fill: #ffffff" in ground.attrib["style"]


def test_nothing_to_draw_writes_nothing(pages: Any, pictures: Any, tmp_path: Path) -> None:
    found = {"upsample": everything()["upsample"]}
    assert not pictures.save_picture(found, tmp_path / "a.svg") and not (tmp_path / "a.svg").exists()
    assert "speed.svg" not in pages.page(found, picture=False)
