"""ONNX to TensorRT engine, on the machine that will run it.

Needs TensorRT, a driver and numpy: no torch, no onnx, Python 3.8 or newer.
"""

from __future__ import annotations

import dataclasses
import difflib
import time
from pathlib import Path
from typing import Any, Callable, List, Optional, Sequence, Tuple, Union

from rtda_deploy import __version__
from rtda_deploy.engine_file import EngineBuild, EngineSidecar, Machine, write_sidecar
from rtda_deploy.errors import ConfigError, ExportError
from rtda_deploy.files import atomic_path, sha256_file
from rtda_deploy.onnx_file import OnnxFacts, read_onnx_facts
from rtda_deploy.spec import ModelSpec
from rtda_export.precision import ENGINE_DEFAULT, Precision, precision_named
from rtda_export.tensorrt.cache import (
    cached_engine,
    engine_path,
    load_timing_cache,
    save_timing_cache,
    timing_cache_path,
)
from rtda_export.tensorrt.dialects import Dialect, check_precision, dialect_of, keep_layers, parse, set_precision
from rtda_export.tensorrt.dla import DlaCoverage, use_dla
from rtda_export.tensorrt.library import load_tensorrt, machine_of, new_builder
from rtda_export.tensorrt.progress import BuildProgress, Watch, monitor_for, run_watched
from rtda_export.tensorrt.settings import BuildSettings, apply_settings, check_settings
from rtda_runtime.engines.tensorrt_session import tensorrt_logger

__all__ = ["EngineFile", "engine_from_onnx"]

Tell = Callable[[BuildProgress], None]


@dataclasses.dataclass(frozen=True)
class EngineFile:
    """An engine that stands on the disk with its sidecar.

    Attributes:
        path: The engine.
        sidecar: What stands in ``<path>.json``.
        seconds: The build took; for a cached engine, when it was built.
        size_bytes: Of the engine.
        built: Whether it was built now; False: it was there already and is the same.
        layers: Of the network, as parsed; TensorRT fuses them.
        notes: What a person should know, beside what ``dla`` says.
        dla: Which layers the DLA takes; None: no DLA, or a cached engine.
    """

    path: Path
    sidecar: EngineSidecar
    seconds: float
    size_bytes: int
    built: bool
    layers: int
    notes: Tuple[str, ...] = ()
    dla: Optional[DlaCoverage] = None


@dataclasses.dataclass(frozen=True)
class _Plan:
    """Everything that is settled before TensorRT is asked to build."""

    facts: OnnxFacts
    spec: ModelSpec
    dialect: Dialect
    settings: BuildSettings
    wanted: EngineBuild
    timing: Optional[Path]


def engine_from_onnx(
    onnx_path: Union[str, Path],
    out_path: Optional[Union[str, Path]] = None,
    *,
    precision: str = ENGINE_DEFAULT.name,
    workspace_mib: Optional[int] = None,
    tactic_sources: Optional[Sequence[str]] = None,
    optimization_level: Optional[int] = None,
    dla_core: Optional[int] = None,
    keep_fp32: Optional[Sequence[str]] = None,
    timing_cache: Optional[Union[str, Path]] = None,
    rebuild: bool = False,
    spec: Optional[ModelSpec] = None,
    on_progress: Optional[Tell] = None,
) -> EngineFile:
    """Build the engine of an ``.onnx`` for this machine's GPU, with its sidecar; takes minutes on a Jetson.

    Args:
        onnx_path: One file with its weights and an input of fixed shape, as its spec says; what it needs per precision
            and TensorRT is in :mod:`rtda_export.tensorrt.dialects`.
        out_path: ``.engine`` to write, whole or not at all; None: ``<stem>.<precision>.engine`` beside the ``.onnx``.
        precision: Name of a row of :data:`rtda_export.precision.PRECISIONS`; fp32 means without TF32.
        workspace_mib: Limit on the builder's scratch memory, MiB; None: TensorRT's own.
        tactic_sources: Of ``cublas``, ``cublas_lt``, ``cudnn``, ``edge_mask_convolutions``, ``jit_convolutions``; None:
            TensorRT's own choice; empty: none of them.
        optimization_level: 0 to 5, from TensorRT 8.6 on; None: TensorRT's own.
        dla_core: Run on this DLA what it takes, the rest on the GPU; experimental.
        keep_fp32: Nodes to compute in FP32, where precision is a flag; None: those that the file's metadata names.
        timing_cache: File of kernel timings; None: the user's own for this TensorRT and GPU; empty: none.
        rebuild: Build although the same engine is there.
        spec: Used instead of the file's own.
        on_progress: Called in this thread, about twice a second.

    Raises:
        ConfigError: If an option makes no sense, or this TensorRT or this file cannot give it.
        ExportError: If the file is damaged, has no spec, or TensorRT cannot parse or build it.
        DeviceError: If TensorRT's libraries, the driver, the GPU or the DLA are missing.
        MissingPackageError: If TensorRT or a CUDA binding is not installed.
        FileAccessError: If a file cannot be read or written.
        KeyboardInterrupt: On Ctrl-C, after an orderly end; nothing is left under the final name.
    """
    sources = None if tactic_sources is None else tuple(tactic_sources)
    settings = BuildSettings(workspace_mib, sources, optimization_level)
    if dla_core is not None and dla_core < 0:
        raise ConfigError(f"there is no DLA core {dla_core}", hint="the first is 0")
    trt = load_tensorrt()
    facts = read_onnx_facts(onnx_path)
    dialect = dialect_of(trt)
    check_settings(trt, settings)
    chosen = precision_named(precision)
    check_precision(dialect, facts, chosen, dla=dla_core is not None, version=str(trt.__version__))
    kept = _kept(dialect, facts, chosen, keep_fp32)
    machine = machine_of(trt)
    wanted = _wanted(facts, machine, precision, settings, dla_core, kept)
    plan = _Plan(facts, _spec(facts, spec), dialect, settings, wanted, timing_cache_path(timing_cache, machine))
    target = Path(out_path) if out_path is not None else engine_path(facts.path, precision, dla_core)
    found = None if rebuild else cached_engine(target, wanted)
    if found is not None:
        built = found.built
        sidecar = EngineSidecar(plan.spec, built, found.sha256, found.size_bytes, facts.card)
        if sidecar != found:  # the same engine under another spec, or from before there were cards
            write_sidecar(target, sidecar)
        return EngineFile(target, sidecar, built.seconds, found.size_bytes, False, built.layers)
    return _build(trt, plan, target, on_progress)


def _build(trt: Any, plan: _Plan, target: Path, on_progress: Optional[Tell]) -> EngineFile:
    notes: List[str] = []
    with atomic_path(target) as temporary:  # opened first: a folder that takes no files is found before the minutes
        started = time.perf_counter()
        builder = new_builder(trt)
        parsed = parse(trt, builder, plan.dialect, plan.facts)
        config = builder.create_builder_config()
        coverage = _configure(trt, plan, builder, config, parsed.network, notes)
        cache = None if plan.timing is None else load_timing_cache(config, plan.timing, notes)
        plan_bytes = _serialized(trt, plan, builder, config, parsed.network, on_progress)
        seconds = time.perf_counter() - started
        if plan.timing is not None and cache is not None:
            save_timing_cache(config, plan.timing, notes)
        with temporary.open("wb") as stream:
            stream.write(plan_bytes)
        built = dataclasses.replace(
            plan.wanted, layers=parsed.network.num_layers, seconds=round(seconds, 3), rtda_deploy=__version__
        )
        size_bytes = temporary.stat().st_size
        sidecar = EngineSidecar(plan.spec, built, sha256_file(temporary), size_bytes, plan.facts.card)
    write_sidecar(target, sidecar)
    return EngineFile(target, sidecar, seconds, sidecar.size_bytes, True, built.layers, tuple(notes), coverage)


def _configure(
    trt: Any, plan: _Plan, builder: Any, config: Any, network: Any, notes: List[str]
) -> Optional[DlaCoverage]:
    wanted = plan.wanted
    set_precision(trt, plan.dialect, config, plan.facts, precision_named(wanted.precision))
    if wanted.kept_fp32 and not plan.dialect.strongly_typed(plan.facts):
        unbound = keep_layers(trt, config, network, plan.facts, wanted.kept_fp32)
        if unbound:
            notes.append(f"nothing to keep in FP32 is left of {', '.join(unbound)}: folded into other layers")
    apply_settings(trt, config, plan.settings)
    if wanted.dla_core is None:
        return None
    return use_dla(trt, builder, config, network, wanted.dla_core)


def _serialized(trt: Any, plan: _Plan, builder: Any, config: Any, network: Any, on_progress: Optional[Tell]) -> Any:
    """The engine's bytes, as the buffer that TensorRT gives."""
    watch = Watch()
    monitor = monitor_for(trt, watch)
    if monitor is not None:
        config.progress_monitor = monitor
    log = tensorrt_logger(trt)
    log.clear()
    content = run_watched(
        lambda: builder.build_serialized_network(network, config), watch, on_progress, can_stop=monitor is not None
    )
    if content is None or not content.nbytes:
        raise ExportError(
            f"TensorRT {trt.__version__} built no {plan.wanted.precision} engine from {plan.facts.path.name}",
            why=log.reason() or "it gives no reason",
            hint=_build_hint(log.reason()),
        )
    return content


def _build_hint(reason: str) -> str:
    text = reason.lower()
    if "memory" in text:
        return "give the builder less: --workspace 256   (and close what else uses the GPU)"
    if "precision" in text or "constraint" in text:
        return "a layer kept in FP32 has no FP32 kernel here; try --precision fp32"
    return "try --precision fp32 and --workspace 1024; what TensorRT says is in the line above"


def _kept(dialect: Dialect, facts: OnnxFacts, precision: Precision, asked: Optional[Sequence[str]]) -> Tuple[str, ...]:
    """Nodes that stay FP32: as asked, else as the metadata says; none in an FP32 engine."""
    if asked is None:
        return tuple(dict.fromkeys(facts.keep_fp32)) if precision.reduced else ()
    if dialect.strongly_typed(facts) and set(asked) != set(facts.keep_fp32):
        raise ConfigError(
            f"layers cannot be kept in FP32 when building from {facts.path.name}: its own types are binding",
            why=f"it keeps {', '.join(facts.keep_fp32) or 'none'}",
            hint="choose them at export: rtda-deploy export ckpt.pth --to onnx --precision fp16",
        )
    for name in asked:
        if name not in facts.node_names:
            near = difflib.get_close_matches(name, facts.node_names, n=3, cutoff=0.4)
            raise ConfigError(
                f"{facts.path.name} has no node {name!r}", hint=f"near: {', '.join(near or facts.node_names[:3])}"
            )
    return tuple(dict.fromkeys(asked))


def _wanted(
    facts: OnnxFacts,
    machine: Machine,
    precision: str,
    settings: BuildSettings,
    dla_core: Optional[int],
    kept: Tuple[str, ...],
) -> EngineBuild:
    return EngineBuild(
        onnx=facts.path.name,
        onnx_sha256=sha256_file(facts.path),
        precision=precision,
        tensorrt=machine.tensorrt,
        gpu=machine.gpu,
        compute_capability=machine.compute_capability,
        size_hw=facts.size_hw,
        kept_fp32=kept,
        dla_core=dla_core,
        workspace_mib=settings.workspace_mib,
        tactic_sources=settings.tactic_sources,
        optimization_level=settings.optimization_level,
    )


def _spec(facts: OnnxFacts, given: Optional[ModelSpec]) -> ModelSpec:
    spec = given or facts.spec
    if spec is None:
        raise ExportError(
            f"{facts.path.name} has no ModelSpec in its metadata, so its engine could not be run",
            why="mean, size and class list are never guessed",
            hint=f"give it one: rtda-deploy export {facts.path.name} --spec spec.json --out with-spec",
        )
    if spec.size_hw != facts.size_hw:
        raise ExportError(
            f"{facts.path.name} takes {facts.size_hw[1]}x{facts.size_hw[0]} (width x height), "
            f"its spec says {spec.size_hw[1]}x{spec.size_hw[0]}",
            hint="export it again from its checkpoint, or correct the spec",
        )
    return spec
