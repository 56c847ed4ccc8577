"""The engine builder, in each of TensorRT's dialects, on stand-ins whose attributes are those of the real modules."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any, Callable, Dict, List

import pytest
from export.tensorrt_standins import FLOAT16, QUANTIZED, World, kept, spec, write_onnx

from export import tensorrt_standins as standins
from rtda_deploy.card import BINS, Card
from rtda_deploy.engine_file import Machine, read_sidecar, sidecar_path, write_sidecar
from rtda_deploy.errors import ConfigError, DeviceError, ExportError, FileAccessError, MissingPackageError, RtdaError
from rtda_deploy.onnx_file import CARD_KEY
from rtda_export.tensorrt import BuildProgress, engine_from_onnx, engine_path, this_machine
from rtda_export.tensorrt.library import load_tensorrt
from rtda_export.tensorrt.progress import Watch
from rtda_runtime.engines.tensorrt import describe

Install = Callable[..., World]
FLAGGED = ("8.5", "8.6", "10")  # generations in which a flag chooses FP16


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RTDA_CACHE", str(tmp_path / "cache"))


@pytest.fixture()
def tensorrt(monkeypatch: pytest.MonkeyPatch) -> Install:
    """Make ``import tensorrt`` give the stand-in of a generation."""

    def install(generation: str, **machine: Any) -> World:
        return standins.install(generation, monkeypatch.setitem, monkeypatch.setattr, **machine)

    return install


def names(folder: Path) -> List[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.is_file())


# ---- what is told to TensorRT ----


@pytest.mark.parametrize(
    "generation, network_flags, builder_flags",
    [("8.5", 0b01, ["FP16"]), ("8.6", 0b01, ["FP16"]), ("10", 0b01, ["FP16"])],
)
def test_a_float32_file_becomes_fp16_by_a_flag(
    tmp_path: Path, tensorrt: Install, generation: str, network_flags: int, builder_flags: List[str]
) -> None:
    world = tensorrt(generation)
    made = engine_from_onnx(write_onnx(tmp_path))
    assert made.path == tmp_path / "best.fp16.engine" and made.path.read_bytes() == b"an engine"
    assert (world.network_flags, world.flags()) == ([network_flags], builder_flags)
    assert made.built and made.layers == 4 and made.size_bytes == 9 and made.notes == ()


@pytest.mark.parametrize(
    "generation, network_flags, builder_flags", [("8.5", 1, ["FP16"]), ("10", 2, []), ("11", 1, [])]
)
def test_a_float16_file_is_strongly_typed_where_that_exists(
    tmp_path: Path, tensorrt: Install, generation: str, network_flags: int, builder_flags: List[str]
) -> None:
    world = tensorrt(generation)
    made = engine_from_onnx(write_onnx(tmp_path, "best.fp16.onnx", weight_type=FLOAT16))
    assert made.path.name == "best.fp16.engine"
    assert (world.network_flags, world.flags()) == ([network_flags], builder_flags)


def test_tensorrt_11_names_the_command_for_a_float32_file(tmp_path: Path, tensorrt: Install) -> None:
    tensorrt("11")
    with pytest.raises(ConfigError, match=r"best\.onnx is float32.*no FP16 switch") as caught:
        engine_from_onnx(write_onnx(tmp_path))
    assert caught.value.hint == "make best.fp16.onnx: rtda-deploy export ckpt.pth --to onnx --precision fp16"
    assert names(tmp_path) == ["best.onnx"]


@pytest.mark.parametrize("generation", standins.VERSIONS)
def test_fp32_means_fp32_and_not_tf32(tmp_path: Path, tensorrt: Install, generation: str) -> None:
    world = tensorrt(generation)
    made = engine_from_onnx(write_onnx(tmp_path), precision="fp32")
    assert made.path.name == "best.fp32.engine"
    assert world.flags() == [] and world.cleared() == ["TF32"]


@pytest.mark.parametrize("generation, flags", [("8.5", ["FP16", "INT8"]), ("10", ["FP16", "INT8"]), ("11", [])])
def test_int8_is_built_from_a_quantised_file(
    tmp_path: Path, tensorrt: Install, generation: str, flags: List[str]
) -> None:
    world = tensorrt(generation)
    made = engine_from_onnx(write_onnx(tmp_path, "best.int8.onnx", nodes=QUANTIZED), precision="int8")
    assert made.path.name == "best.int8.engine" and world.flags() == flags


@pytest.mark.parametrize(
    "options, precision, words, fix",
    [
        ({}, "int8", "no QuantizeLinear", "--precision int8 --calibrate PATH"),
        ({"nodes": QUANTIZED}, "fp16", "is quantised", "--precision int8"),
        ({"nodes": QUANTIZED}, "fp32", "is quantised", "best.onnx"),
        ({"weight_type": FLOAT16}, "fp32", "float16 weights", "--precision fp16"),
        ({}, "bf16", "no file of its own", "--precision fp32"),
        ({}, "fp8", "unknown precision", "fp32, fp16, int8"),
    ],
)
def test_a_precision_that_the_file_cannot_give_is_refused(
    tmp_path: Path, tensorrt: Install, options: Dict[str, Any], precision: str, words: str, fix: str
) -> None:
    tensorrt("10")
    with pytest.raises(ConfigError, match=words) as caught:
        engine_from_onnx(write_onnx(tmp_path, **options), precision=precision)
    assert fix in caught.value.hint


@pytest.mark.parametrize("generation", FLAGGED)
def test_kept_nodes_are_bound_to_fp32_with_their_outputs(tmp_path: Path, tensorrt: Install, generation: str) -> None:
    world = tensorrt(generation)
    made = engine_from_onnx(write_onnx(tmp_path, metadata=kept(["/head/Conv"])))
    assert world.bound() == {"/head/Conv": ("FLOAT", ["FLOAT"])}
    assert world.flags() == ["FP16", "OBEY_PRECISION_CONSTRAINTS"]
    assert made.sidecar.built.kept_fp32 == ("/head/Conv",)


def test_what_the_caller_keeps_replaces_what_the_file_says(tmp_path: Path, tensorrt: Install) -> None:
    world = tensorrt("8.5")
    path = write_onnx(tmp_path, metadata=kept(["/head/Conv"]))
    assert engine_from_onnx(path, keep_fp32=["/context/Conv"]).sidecar.built.kept_fp32 == ("/context/Conv",)
    assert list(world.bound()) == ["/context/Conv"]
    assert engine_from_onnx(path, keep_fp32=[]).sidecar.built.kept_fp32 == ()


def test_layers_are_found_by_the_names_that_the_parser_gives_them(tmp_path: Path, tensorrt: Install) -> None:
    """Nodes without names, two nodes of one name, numbered further layers, and a node that looks like such a one."""
    world = tensorrt("8.5")
    nodes = (("", "Conv"), ("a", "Conv"), ("a", "Relu"), ("/b/Conv", "Conv"), ("/b/Conv_1", "Conv"))
    engine_from_onnx(write_onnx(tmp_path, nodes=nodes, metadata=kept(["Conv_0", "/b/Conv"])))
    assert list(world.bound()) == ["node_of_t1", "/b/Conv"]


def test_a_kept_node_without_floating_point_is_noted_and_not_bound(tmp_path: Path, tensorrt: Install) -> None:
    world = tensorrt("8.5")
    made = engine_from_onnx(write_onnx(tmp_path, nodes=(("c", "Conv"), ("s", "Shape")), metadata=kept(["s"])))
    assert world.flags() == ["FP16"] and "of s" in made.notes[0]


def test_a_typed_file_says_itself_what_it_keeps(tmp_path: Path, tensorrt: Install) -> None:
    world = tensorrt("10")
    path = write_onnx(tmp_path, "best.fp16.onnx", weight_type=FLOAT16, metadata=kept(["/head/Conv"], "fp16"))
    assert engine_from_onnx(path).sidecar.built.kept_fp32 == ("/head/Conv",)
    assert world.flags() == [] and not world.bound()
    with pytest.raises(ConfigError, match="its own types are binding"):
        engine_from_onnx(path, keep_fp32=["/context/Conv"])


def test_an_unknown_node_to_keep_names_those_near(tmp_path: Path, tensorrt: Install) -> None:
    tensorrt("8.5")
    with pytest.raises(ConfigError, match="no node '/head/Con'") as caught:
        engine_from_onnx(write_onnx(tmp_path), keep_fp32=["/head/Con"])
    assert "/head/Conv" in caught.value.hint


@pytest.mark.parametrize("generation", FLAGGED)
def test_tactic_sources_become_bits(tmp_path: Path, tensorrt: Install, generation: str) -> None:
    world = tensorrt(generation)
    engine_from_onnx(write_onnx(tmp_path), tactic_sources=("cudnn", "edge_mask_convolutions"))
    assert world.tactic_sources() == 0b01100


@pytest.mark.parametrize("generation, external_off", [("8.5", [True]), ("8.6", [True]), ("10", []), ("11", [])])
def test_no_tactic_sources_turns_the_libraries_off_also_on_8_5(
    tmp_path: Path, tensorrt: Install, generation: str, external_off: List[bool]
) -> None:
    world = tensorrt(generation)
    engine_from_onnx(write_onnx(tmp_path), precision="fp32", tactic_sources=())
    assert world.tactic_sources() == 0 and world.previews() == external_off


def test_asking_for_cudnn_turns_it_on_where_it_is_off_beside_the_bits(tmp_path: Path, tensorrt: Install) -> None:
    world = tensorrt("8.6")
    engine_from_onnx(write_onnx(tmp_path), tactic_sources=("cudnn",))
    assert world.previews() == [False]


def test_by_default_tactic_sources_are_left_alone(tmp_path: Path, tensorrt: Install) -> None:
    world = tensorrt("8.5")
    engine_from_onnx(write_onnx(tmp_path))
    assert world.tactic_sources() is None and not world.previews() and not world.memory_limits()


@pytest.mark.parametrize(
    "generation, options, words",
    [
        ("11", {"tactic_sources": ("cublas",)}, "11.4.0.106 has no tactic source cublas"),
        ("8.5", {"tactic_sources": ("cuda",)}, "unknown tactic source 'cuda'"),
        ("8.5", {"optimization_level": 5}, "8.5.2.2 has no optimization level"),
        ("10", {"optimization_level": 6}, "optimization level 6"),
        ("10", {"workspace_mib": 0}, "at least 1 MiB"),
        ("10", {"dla_core": -1}, "no DLA core -1"),
    ],
)
def test_what_a_tensorrt_does_not_have_is_refused_before_anything_starts(
    tmp_path: Path, tensorrt: Install, generation: str, options: Dict[str, Any], words: str
) -> None:
    world = tensorrt(generation)
    with pytest.raises(ConfigError, match=words) as caught:
        engine_from_onnx(write_onnx(tmp_path), precision="fp32", **options)
    assert caught.value.hint and not world.configs


def test_tactic_sources_that_tensorrt_refuses_end_the_export(tmp_path: Path, tensorrt: Install) -> None:
    tensorrt("8.5").tactics = False
    with pytest.raises(ExportError, match="refuses the tactic sources cublas"):
        engine_from_onnx(write_onnx(tmp_path), tactic_sources=("cublas",))


def test_workspace_and_level_are_passed_on_and_written_down(tmp_path: Path, tensorrt: Install) -> None:
    world = tensorrt("10")
    built = engine_from_onnx(write_onnx(tmp_path), workspace_mib=512, optimization_level=5).sidecar.built
    assert world.memory_limits() == [512 << 20] and world.config.builder_optimization_level == 5
    assert (built.workspace_mib, built.optimization_level) == (512, 5)


# ---- the DLA ----


def test_the_dla_report_counts_layers_and_changes(tmp_path: Path, tensorrt: Install) -> None:
    world = tensorrt("8.5")
    world.dla_cores, world.off_dla = 2, {"Relu", "Resize"}
    made = engine_from_onnx(write_onnx(tmp_path), dla_core=1)
    assert made.path.name == "best.fp16.dla1.engine"
    assert (world.config.default_device_type.name, world.config.DLA_core) == ("DLA", 1)
    assert world.flags() == ["FP16", "GPU_FALLBACK"]
    assert made.dla is not None and made.dla.on_dla == ("/context/Conv", "/head/Conv") and made.dla.changes == 3
    assert made.dla.on_gpu == (("/context/Relu", "activation"), ("/head/Resize", "resize"))
    assert "experimental" in made.dla.text and "2 of 4 layers, 3 changes" in made.dla.text


def test_a_machine_without_a_dla_says_so(tmp_path: Path, tensorrt: Install) -> None:
    world = tensorrt("10")
    with pytest.raises(DeviceError, match="no DLA here"):
        engine_from_onnx(write_onnx(tmp_path), dla_core=0)
    world.dla_cores = 1
    with pytest.raises(ConfigError, match="no DLA core 3"):
        engine_from_onnx(write_onnx(tmp_path), dla_core=3)
    assert names(tmp_path) == ["best.onnx"]


def test_a_dla_takes_fp16_only(tmp_path: Path, tensorrt: Install) -> None:
    tensorrt("8.5").dla_cores = 2
    for path, precision in (
        (write_onnx(tmp_path), "fp32"),
        (write_onnx(tmp_path, "best.int8.onnx", nodes=QUANTIZED), "int8"),
    ):
        with pytest.raises(ConfigError, match=f"does not take {precision}"):
            engine_from_onnx(path, precision=precision, dla_core=0)


# ---- sidecar and cache ----


def test_the_sidecar_says_what_the_engine_is(tmp_path: Path, tensorrt: Install) -> None:
    tensorrt("8.5")
    made = engine_from_onnx(write_onnx(tmp_path))
    sidecar = read_sidecar(made.path)
    assert sidecar == made.sidecar and sidecar.spec == spec()
    built = sidecar.built
    assert built.machine == Machine("8.5.2.2", "Xavier", (7, 2)) == this_machine()
    assert (built.onnx, built.precision, built.size_hw, built.layers) == ("best.onnx", "fp16", (64, 128), 4)
    values = json.loads(sidecar_path(made.path).read_text())
    assert set(values) == {"format", "spec", "built", "sha256", "size_bytes"} and values["format"] == 1


CARD = Card("camvid:x", 9, True, 1.5, (0.5, 0.5), (0.4, 0.6), (1 / BINS,) * BINS, (0.75,) * BINS).to_json()


def test_the_calibration_card_goes_into_the_sidecar_and_of_an_engine_without_one_too(
    tmp_path: Path, tensorrt: Install
) -> None:
    world = tensorrt("8.5")
    metadata = {**standins.kept(()), CARD_KEY: CARD}
    made = engine_from_onnx(write_onnx(tmp_path, metadata=metadata))
    assert made.sidecar.card == CARD and read_sidecar(made.path) == made.sidecar
    write_sidecar(made.path, dataclasses.replace(made.sidecar, card=""))  # as the version before wrote it
    again = engine_from_onnx(tmp_path / "best.onnx")
    assert not again.built and world.builds == 1 and read_sidecar(made.path).card == CARD
    found = describe(made.path)["card"]
    assert (found["pictures"], found["held_out"], found["right"]) == (9, True, pytest.approx(0.75))


def test_the_same_engine_is_not_built_twice(tmp_path: Path, tensorrt: Install) -> None:
    world = tensorrt("8.5")
    path = write_onnx(tmp_path)
    first, second = engine_from_onnx(path), engine_from_onnx(path)
    assert (first.built, second.built, world.builds) == (True, False, 1)
    assert second.sidecar == first.sidecar and second.layers == 4 and second.seconds == first.sidecar.built.seconds
    assert engine_from_onnx(path, rebuild=True).built and world.builds == 2


@pytest.mark.parametrize(
    "change",
    [
        {"keep_fp32": ["/head/Conv"]},
        {"workspace_mib": 64},
        {"tactic_sources": ()},
        {"precision": "fp32"},
        {"optimization_level": 1},
    ],
)
def test_another_option_is_another_engine(tmp_path: Path, tensorrt: Install, change: Dict[str, Any]) -> None:
    world = tensorrt("8.6")
    path, out = write_onnx(tmp_path), tmp_path / "model.engine"
    engine_from_onnx(path, out)
    assert engine_from_onnx(path, out, **change).built
    assert not engine_from_onnx(path, out, **change).built
    assert world.builds == 2


@pytest.mark.parametrize(
    "generation, machine",
    [("8.6", {}), ("8.5", {"gpu": "Orin"}), ("8.5", {"compute_capability": (8, 7)})],
)
def test_another_machine_builds_again(
    tmp_path: Path, tensorrt: Install, generation: str, machine: Dict[str, Any]
) -> None:
    tensorrt("8.5")
    path = write_onnx(tmp_path)
    engine_from_onnx(path)
    tensorrt(generation, **machine)
    assert engine_from_onnx(path).built


def test_a_damaged_engine_or_sidecar_is_built_again(tmp_path: Path, tensorrt: Install) -> None:
    tensorrt("8.5")
    path = write_onnx(tmp_path)
    engine = engine_from_onnx(path).path
    for spoil in (
        lambda: engine.write_bytes(b"an engin"),
        lambda: engine.write_bytes(b"an enginE"),
        lambda: engine.unlink(),
        lambda: sidecar_path(engine).unlink(),
        lambda: sidecar_path(engine).write_text("{"),
        lambda: path.write_bytes(standins.onnx_bytes(opset=16)),
    ):
        spoil()
        assert engine_from_onnx(path).built
        assert not engine_from_onnx(path).built


def test_a_cached_engine_gets_the_spec_that_was_asked_for(tmp_path: Path, tensorrt: Install) -> None:
    tensorrt("8.5")
    path = write_onnx(tmp_path)
    engine_from_onnx(path)
    other = spec().replace(mean=(0.0, 0.0, 0.0))
    made = engine_from_onnx(path, spec=other)
    assert not made.built and read_sidecar(made.path).spec == other


def test_names_follow_the_file(tmp_path: Path) -> None:
    assert engine_path("runs/best.onnx", "fp16") == Path("runs/best.fp16.engine")
    assert engine_path("best.fp16.onnx", "fp16").name == "best.fp16.engine"
    assert engine_path("best.int8.onnx", "int8", 0).name == "best.int8.dla0.engine"
    assert engine_path("v1.2.onnx", "fp32").name == "v1.2.fp32.engine"


def test_an_onnx_without_or_against_its_spec_is_refused(tmp_path: Path, tensorrt: Install) -> None:
    tensorrt("8.5")
    with pytest.raises(ExportError, match="no ModelSpec") as caught:
        engine_from_onnx(write_onnx(tmp_path, metadata={}))
    assert "--spec spec.json" in caught.value.hint
    with pytest.raises(ExportError, match=r"takes 128x64 .* its spec says 64x32"):
        engine_from_onnx(write_onnx(tmp_path), spec=spec((32, 64)))


# ---- timing cache ----


def test_the_timing_cache_is_the_users_own_and_grows(tmp_path: Path, tensorrt: Install) -> None:
    world = tensorrt("8.5")
    path = write_onnx(tmp_path)
    engine_from_onnx(path)
    file = tmp_path / "cache" / "tensorrt" / "8.5.2.2-Xavier-sm72.timing"
    assert file.read_bytes() == b"measured"
    engine_from_onnx(path, rebuild=True)
    assert world.caches(1) == [b"measured"] and file.read_bytes() == b"measuredmeasured"


def test_a_timing_cache_may_be_named_or_off(tmp_path: Path, tensorrt: Install) -> None:
    world = tensorrt("10")
    path = write_onnx(tmp_path)
    engine_from_onnx(path, timing_cache=tmp_path / "own.timing")
    assert (tmp_path / "own.timing").read_bytes() == b"measured"
    engine_from_onnx(path, timing_cache="", rebuild=True)
    assert world.caches(1) == [] and not (tmp_path / "cache").exists()


def test_a_timing_cache_of_another_gpu_is_noted_and_begun_anew(tmp_path: Path, tensorrt: Install) -> None:
    tensorrt("10")
    file = tmp_path / "own.timing"
    file.write_bytes(b"of another GPU")
    made = engine_from_onnx(write_onnx(tmp_path), timing_cache=file)
    assert "begun anew" in made.notes[0] and file.read_bytes() == b"measured"


def test_a_timing_cache_that_cannot_be_kept_costs_no_engine(
    tmp_path: Path, tensorrt: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensorrt("10")
    (tmp_path / "file").write_text("where a folder is needed")
    monkeypatch.setenv("RTDA_CACHE", str(tmp_path / "file"))
    made = engine_from_onnx(write_onnx(tmp_path))
    assert made.path.exists() and any("not kept" in note for note in made.notes)
    with pytest.raises(FileAccessError):
        engine_from_onnx(write_onnx(tmp_path), timing_cache=tmp_path / "file" / "own.timing", rebuild=True)


# ---- failures ----


@pytest.mark.parametrize("generation", standins.VERSIONS)
def test_all_complaints_of_the_parser_are_one_error(tmp_path: Path, tensorrt: Install, generation: str) -> None:
    world = tensorrt(generation)
    world.errors = [(3, "Resize is  not\nsupported"), (3, "Resize is  not\nsupported"), (1, "no Relu")]
    with pytest.raises(ExportError, match=r"cannot parse best\.onnx \(opset 17\)") as caught:
        engine_from_onnx(write_onnx(tmp_path), precision="fp32")
    assert caught.value.why == (
        "node /head/Resize (Resize): Resize is not supported (UNSUPPORTED_NODE); "
        "node /context/Relu (Relu): no Relu (UNSUPPORTED_NODE)"
    )
    assert names(tmp_path) == ["best.onnx"]


@pytest.mark.parametrize(
    "says, fix",
    [
        ("Requested amount of GPU memory (1073741824 bytes) could not be allocated", "--workspace 256"),
        ("Could not find any implementation for node /head/Conv due to precision constraints", "no FP32 kernel"),
        ("", "--precision fp32"),
    ],
)
def test_a_build_that_fails_gives_tensorrts_own_reason(tmp_path: Path, tensorrt: Install, says: str, fix: str) -> None:
    world = tensorrt("8.5")
    world.engine, world.says = None, says
    with pytest.raises(ExportError, match=r"built no fp16 engine from best\.onnx") as caught:
        engine_from_onnx(write_onnx(tmp_path))
    assert says in caught.value.why and fix in caught.value.hint
    assert names(tmp_path) == ["best.onnx"]


def test_a_driver_that_tensorrt_cannot_use_is_said_in_words(tmp_path: Path, tensorrt: Install) -> None:
    world = tensorrt("8.5")
    world.driver, world.says = False, "CUDA initialization failure with error: 35. Please check"
    with pytest.raises(DeviceError, match=r"TensorRT 8\.5\.2\.2 found no GPU it can use") as caught:
        engine_from_onnx(write_onnx(tmp_path))
    assert "error: 35" in caught.value.why and "driver is missing" in caught.value.why


def test_without_tensorrt_the_install_line_is_given(tmp_path: Path) -> None:
    try:
        import tensorrt  # noqa: F401
    except ImportError:
        pass
    else:
        pytest.skip("TensorRT is installed here")
    with pytest.raises(MissingPackageError, match="tensorrt is not installed") as caught:
        engine_from_onnx(write_onnx(tmp_path))
    assert caught.value.hint == "pip install 'rtda-deploy[tensorrt-cu12]'"


def test_another_package_called_tensorrt_is_not_taken_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tensorrt").mkdir()
    (tmp_path / "tensorrt" / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    try:
        with pytest.raises(DeviceError, match="is not TensorRT") as caught:
            load_tensorrt()
    finally:
        sys.modules.pop("tensorrt", None)
    assert str(tmp_path) in caught.value.why


# ---- progress and Ctrl-C ----


def test_the_time_is_shown_where_tensorrt_shows_nothing(tmp_path: Path, tensorrt: Install) -> None:
    tensorrt("8.5")
    seen: List[BuildProgress] = []
    engine_from_onnx(write_onnx(tmp_path), on_progress=seen.append)
    assert seen and all(progress.fraction is None and progress.phase == "" for progress in seen)


def test_progress_adds_up_over_nested_phases_and_never_falls() -> None:
    watch = Watch()
    seen = [watch.state(0.0)]
    watch.begin("Building", 2)
    for outer in range(2):
        watch.begin("Timing", 4)
        for inner in range(4):
            assert watch.step("Timing", inner)
            seen.append(watch.state(1.0))
        watch.end("Timing")
        seen.append(watch.state(1.0))
        watch.step("Building", outer)
    seen.append(watch.state(2.0))
    fractions = [progress.fraction for progress in seen[1:]]
    assert seen[0] == BuildProgress(0.0) and fractions == sorted(fractions) and fractions[-1] == 1.0
    assert fractions[0] == 0.125 and seen[1].phase == "Timing" and seen[-1].phase == "Building"
    watch.stop.set()
    assert not watch.step("Building", 1)


def test_an_error_in_the_progress_display_ends_the_build(tmp_path: Path, tensorrt: Install) -> None:
    world = tensorrt("10")
    world.steps, world.during = 1000, lambda config: time.sleep(0.005)

    def breaks(progress: BuildProgress) -> None:
        raise ValueError("the terminal is gone")

    with pytest.raises(ValueError, match="terminal"):
        engine_from_onnx(write_onnx(tmp_path), on_progress=breaks)
    assert world.builds == 0 and names(tmp_path) == ["best.onnx"]


_PROGRAM = """
import os, sys, time
from pathlib import Path
from export import tensorrt_standins as standins
from rtda_export.tensorrt import engine_from_onnx

world = standins.install({generation!r})
world.steps = {steps}

def during(config):
    print("building", flush=True)
    time.sleep(0.2)

world.during = during
try:
    engine_from_onnx({path!r}, on_progress=lambda progress: progress.note and print(progress.note, flush=True))
except KeyboardInterrupt:
    print("stopped", world.builds, flush=True)
    sys.exit(130)
"""


def _start(path: Path, generation: str, steps: int) -> subprocess.Popen[str]:
    program = textwrap.dedent(_PROGRAM).format(path=str(path), generation=generation, steps=steps)
    places = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(place for place in places if place)}
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    assert process.stdout.readline() == "building\n"
    return process


@pytest.mark.parametrize("generation, steps, finished", [("10", 10_000, 0), ("8.5", 3, 1)])
def test_ctrl_c_ends_orderly_and_leaves_nothing(tmp_path: Path, generation: str, steps: int, finished: int) -> None:
    """From TensorRT 10 on after the step that runs; before, when the build has ended, which it then keeps to itself."""
    process = _start(write_onnx(tmp_path), generation, steps)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate()
    assert process.returncode == 130 and out.splitlines()[-1] == f"stopped {finished}"
    assert ("TensorRT ends the step" in out) == (generation == "10")
    assert ("cannot stop in the middle" in out) == (generation == "8.5")
    assert names(tmp_path) == ["best.onnx"]


def test_a_killed_build_leaves_nothing_under_the_final_name(tmp_path: Path) -> None:
    process = _start(write_onnx(tmp_path), "8.5", 10_000)
    process.kill()
    process.communicate()
    assert not (tmp_path / "best.fp16.engine").exists() and not sidecar_path(tmp_path / "best.fp16.engine").exists()


def test_every_refusal_has_a_fix(tmp_path: Path, tensorrt: Install) -> None:
    tensorrt("11")
    for options in ({"precision": "int8"}, {"precision": "fp16"}, {"precision": "x"}, {"tactic_sources": ["x"]}):
        with pytest.raises(RtdaError) as caught:
            engine_from_onnx(write_onnx(tmp_path), **options)
        assert caught.value.hint, options
