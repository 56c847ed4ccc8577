"""What the figures of a benchmark show a cause for, one sentence and its fix each."""

from __future__ import annotations

import statistics
from typing import Iterator, List, Optional

from rtda_runtime.bench.record import BenchRecord
from rtda_runtime.engines.kinds import cpu_providers
from rtda_runtime.mask.upsample import slow_mask

__all__ = ["advice", "drift"]

# Standard deviation over mean of the network's time above which two results can hardly be compared. GPUs: where trtexec
# warns too. CPUs share their caches and cores with everything else, so more is usual there.
_VARIATION_CPU = 0.10
_VARIATION_GPU = 0.025
_OTHERS = 0.1  # share of the machine that others may take before it is said
_STOLEN = 0.02  # cores
_DRIFT = 0.05  # relative change of the median from the first fifth to the last
_DRIFT_SAMPLES = 50
_KEPT_RATE = 0.99
_WAITING = 1.5  # age over work above which a frame waits notably


def advice(record: BenchRecord) -> List[str]:
    """Sentences on the record; none where nothing stands out."""
    checks = (_settling, _rate, _waiting, _mask, _clocks, _variation, _load, _heat, _threads, _governor)
    return [sentence for check in checks for sentence in check(record)]


def drift(record: BenchRecord) -> Optional[float]:
    """Relative change of the total's median from the first fifth of the frames to the last.

    None: too few frames, or it only goes up and down: the last two fifths are not both slower than the first two.
    """
    values: List[float] = record.samples.get("total", [])
    size = len(values) // 5
    if size * 5 < _DRIFT_SAMPLES:
        return None
    medians = [statistics.median(values[start : start + size]) for start in range(0, 5 * size, size)]
    return medians[4] / medians[0] - 1.0 if min(medians[3:]) > max(medians[:2]) else None


def _settling(record: BenchRecord) -> Iterator[str]:
    if not record.settled and record.settings.duration_s is None:
        yield f"p95 did not settle in {len(record.windows)} windows: is this machine busy? try --duration 30"


def _rate(record: BenchRecord) -> Iterator[str]:
    asked, got = record.settings.rate_hz, record.throughput
    if asked and record.missed and got < _KEPT_RATE * asked:
        yield f"{asked:g} Hz cannot be kept here: {got:.1f} Hz were; --rate {max(1, int(got * 0.9))} leaves some room"


def _waiting(record: BenchRecord) -> Iterator[str]:
    stages = record.stages
    if record.settings.measures != "pipeline" or "wait" not in stages:
        return
    total, waited = stages["total"].p50, stages["wait"].p50
    if total > _WAITING * (total - waited):
        yield (
            f"the work is {total - waited:.1f} ms but a frame is {total:.1f} ms old: it waits {waited:.1f} ms,"
            " because frames come while the one before is still at work, or the CPU is short of cores"
        )


def _mask(record: BenchRecord) -> Iterator[str]:
    stages = record.stages
    work = sum(stages[stage].p50 for stage in ("preprocess", "infer", "postprocess"))
    slow = slow_mask(record.mask_maker, stages["postprocess"].p50, work)
    if slow:
        yield slow


def _clocks(record: BenchRecord) -> Iterator[str]:
    jetson = record.environment.jetson
    if jetson is not None and jetson.gpu_clock is not None and not jetson.gpu_clock.locked:
        yield "clocks not locked: run `sudo jetson_clocks`"


def _variation(record: BenchRecord) -> Iterator[str]:
    limit = _VARIATION_CPU if record.model.provider in cpu_providers() else _VARIATION_GPU
    found = record.variation["infer"]
    if found > limit:
        how = "lock the clocks" if limit == _VARIATION_GPU else "close other programs"
        yield (
            f"the coefficient of variation of infer is {100 * found:.1f} %, more than {100 * limit:g} %:"
            f" {how}, or measure longer (--duration 60)"
        )


def _load(record: BenchRecord) -> Iterator[str]:
    conditions, cores = record.conditions, record.environment.cores_total or 1
    others, stolen = conditions.other_cores, conditions.stolen_cores
    if others is not None and others > _OTHERS * cores:
        yield f"other processes kept {others:.1f} of {cores} cores busy meanwhile: stop them (top) and measure again"
    if stolen is not None and stolen > _STOLEN * cores:
        yield f"the hypervisor took {stolen:.2f} cores meanwhile: this virtual machine shares its cores"


def _heat(record: BenchRecord) -> Iterator[str]:
    conditions, change = record.conditions, drift(record)
    start, end = conditions.temperature_start_c, conditions.temperature_end_c
    heat = f" ({start:.0f} to {end:.0f} °C)" if start is not None and end is not None else ""
    by_heat = bool(conditions.throttled) or any(gpu.throttled == "heat" for gpu in conditions.gpus)
    if by_heat:
        yield f"clocks were lowered for heat meanwhile{heat}: better cooling, or a lower power mode that it can hold"
    if any(gpu.throttled == "power" for gpu in conditions.gpus):
        yield "the GPU's clock was lowered to stay within its power limit"
    if change is not None and change > _DRIFT and not by_heat:
        yield f"it became {100 * change:.0f} % slower while it ran{heat}: heat, or others? --duration 300 shows more"


def _threads(record: BenchRecord) -> Iterator[str]:
    threads, environment = record.model.threads, record.environment
    threads = threads and threads * record.settings.in_flight
    usable = environment.cores_usable or environment.cores
    if record.model.provider not in cpu_providers() or threads is None or threads == usable:
        return
    if threads < usable:
        yield f"{threads} of {usable} cores work on the network: leave --threads out for all of them"
    else:
        why = "" if environment.cpu_quota is None else ", all that the quota pays for"
        yield f"{threads} threads share {usable} cores{why}: leave --threads out"


def _governor(record: BenchRecord) -> Iterator[str]:
    if record.environment.governor == "powersave":
        yield "the CPU's governor is powersave: sudo cpupower frequency-set -g performance"
