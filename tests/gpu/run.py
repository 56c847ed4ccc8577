"""The checks on a GPU without pytest, for a machine that has only numpy, TensorRT and a CUDA binding.

    PYTHONPATH=.:training:export:runtime:tests python -m gpu.run --in FILES --out RESULTS

``make gpu-check`` does the same through pytest. Each phase's line is printed when it ends, and what it found is kept in
``RESULTS/gpu.json`` and ``gpu.md``: the same command goes on where it was stopped, and tries again what failed. Exit
codes: 0 all passed, 1 a phase failed, 2 the results of another machine or of other files are there, 3 no GPU, driver or
package.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

from gpu.phases import FIRST_STEPS, STEPS, Backend, Check, shares, tensorrt_backend

from rtda_deploy.errors import ConfigError, FileAccessError, RtdaError
from rtda_deploy.files import readable_file, writable_folder, write_text

FORMAT = 1  # of manifest.json and gpu.json
_HEAD = "| engine | build s | MiB | pixels agreeing | H2D ms | compute ms | D2H ms | end to end ms | GPU MiB |"


def phase_names(files: Path) -> List[str]:
    """In the order of their worth: whoever is cut off has FP16 at the first size, whole, before anything else."""
    names: List[str] = []
    for size in read_manifest(files)["sizes"]:
        for precision in (name for name in ("fp16", "int8") if name in size["onnx"]):
            steps = STEPS if names else (*STEPS, *FIRST_STEPS)
            names += [f"{step} {size['name']}.{precision}" for step in steps]
    return names


def read_manifest(files: Path) -> Dict[str, Any]:
    """What :mod:`gpu.prepare` wrote.

    Raises:
        ConfigError: If it is of another format.
        FileAccessError: If it is not there.
    """
    path = files / "manifest.json"
    if not path.exists():
        hint = f"PYTHONPATH=tests python -m gpu.prepare --out {files}"
        raise FileAccessError(f"{files} holds no manifest.json", hint=hint)
    manifest: Dict[str, Any] = json.loads(readable_file(path).read_text(encoding="utf-8"))
    if manifest.get("format") != FORMAT:
        raise ConfigError(f"{path} is format {manifest.get('format')!r}, this reads {FORMAT}", hint="prepare again")
    return manifest


class Run:
    """Phases one by one; what they found is on the disk after each.

    Raises:
        ConfigError: If ``out`` holds the results of other files or of another machine.
        DeviceError: If there is no GPU or driver.
        MissingPackageError: If there is no TensorRT or no CUDA binding.
    """

    def __init__(self, files: Path, out: Path, backend: Backend, *, frames: int = 5000, repeats: int = 500) -> None:
        machine = backend.machine()
        self._files, self._manifest, self._backend = files, read_manifest(files), backend
        self._frames, self._repeats = frames, repeats
        digest = hashlib.sha256((files / "manifest.json").read_bytes()).hexdigest()
        key = {"format": FORMAT, "machine": machine, "manifest": digest}
        self.folder = writable_folder(out)
        self.values: Dict[str, Any] = {**key, "phases": {}}
        kept = self.folder / "gpu.json"
        if kept.exists():
            self.values = json.loads(kept.read_text(encoding="utf-8"))
            if {name: self.values.get(name) for name in key} != key:
                raise ConfigError(
                    f"{kept} holds the results of another machine, another TensorRT or other files",
                    hint="name another folder",
                )

    def done(self, name: str) -> bool:
        """Whether the phase passed."""
        return bool(self.values["phases"].get(name, {}).get("passed"))

    def phase(self, name: str) -> Dict[str, Any]:
        """Do one, and write down how it ended: its facts, ``passed`` and the sentence ``says`` among them."""
        step, _, about = name.partition(" ")
        size_name, _, precision = about.rpartition(".")
        size = next(size for size in self._manifest["sizes"] if size["name"] == size_name)
        onnx = {precision: self._files / file for precision, file in size["onnx"].items()}
        check = Check(
            engine=self.folder / f"{about}.engine",
            onnx=onnx,
            stored=self._files / size["frames"],
            precision=precision,
            trained=bool(self._manifest["trained"]),
            backend=self._backend,
            frames_soaked=self._frames,
            repeats=self._repeats,
        )
        started = time.perf_counter()
        try:
            facts = getattr(check, step)()
        except RtdaError as err:
            facts = {"passed": False, "says": " · ".join(text for text in (err.message, err.why) if text)}
        except Exception as err:  # a library's own; what comes after must still be tried
            facts = {"passed": False, "says": f"{type(err).__name__}: {err}"}
        facts = {"about": about, **facts, "seconds": round(time.perf_counter() - started, 2)}
        self.values["phases"][name] = facts
        write_text(self.folder / "gpu.json", json.dumps(self.values, indent=2) + "\n")
        write_text(self.folder / "gpu.md", page(self.values))
        return facts


def page(values: Dict[str, Any]) -> str:
    """What is there so far as the Markdown of docs/results/gpu.md."""
    phases = values["phases"]
    lines = [f"Measured on: {', '.join(values['machine'].values())}.", "", _HEAD, "|" + " --- |" * 9]
    for about in dict.fromkeys(facts["about"] for facts in phases.values()):
        build, parity, latency = (phases.get(f"{step} {about}", {}) for step in STEPS[:3])
        agreement = f"{100 * parity['agreement']:.3f} %" if "agreement" in parity else "-"
        parts = ("h2d", "compute", "d2h", "end_to_end")
        times = [shares(latency["ms"][part]) if "ms" in latency else "-" for part in parts]
        cells = [about, build.get("build_s", "-"), build.get("engine_mib", "-"), agreement, *times]
        lines.append("| " + " | ".join(str(cell) for cell in (*cells, latency.get("gpu_mib", "-"))) + " |")
    lines += ["", "Times are p50 / p95 / p99.", ""]
    told = [(n, facts) for n, facts in phases.items() if n.split()[0] not in STEPS[:3] or not facts["passed"]]
    return "\n".join([*lines, *(f"- {name}: {line_of(facts)}" for name, facts in told)]) + "\n"


def line_of(facts: Dict[str, Any]) -> str:
    """How a phase ended."""
    return ("" if facts["passed"] else "FAILED  ") + str(facts["says"])


def main(arguments: Optional[Sequence[str]] = None, backend: Optional[Backend] = None) -> int:
    """Do every phase that is not done; ``backend``: None for the GPU of this machine."""
    parser = argparse.ArgumentParser(prog="gpu.run", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--in", dest="files", type=Path, required=True, help="what gpu.prepare wrote")
    parser.add_argument("--out", type=Path, required=True, help="engines, gpu.json, gpu.md")
    parser.add_argument("--no-external-tactics", action="store_true", help="build without cuBLAS and cuDNN")
    parser.add_argument("--frames", type=int, default=5000, help="of the soak (default: 5000)")
    parser.add_argument("--repeats", type=int, default=500, help="of each latency (default: 500)")
    options = parser.parse_args(arguments)
    try:
        backend = backend or tensorrt_backend(external_tactics=not options.no_external_tactics)
        run = Run(options.files, options.out, backend, frames=options.frames, repeats=options.repeats)
    except RtdaError as err:
        lines = (("error", err.message), ("why", err.why), ("fix", err.hint))
        print("\n".join(f"{word:<6} {text}" for word, text in lines if text), file=sys.stderr)
        return err.exit_code
    print(" · ".join(run.values["machine"].values()), flush=True)
    names = phase_names(options.files)
    for name in names:
        said = "done before" if run.done(name) else line_of(run.phase(name))
        print(f"{name:<32} {said}", flush=True)
    failed = [name for name in names if not run.done(name)]
    print(f"{len(names) - len(failed)} of {len(names)} phases passed · {run.folder / 'gpu.md'}")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
