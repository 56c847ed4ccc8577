"""Units shared out to actors on Ray: those of the cluster that ``RAY_ADDRESS`` names, else of one made here.

What crosses Ray's object store are units and summaries, a few kB each; actors read pixels from the files and write
masks to the output folder themselves. Ray runs a unit again whose worker died, for ever; the attempts that are counted
in the output folder end that (:mod:`rtda_runtime.fleet.output`). Nothing is asked of Ray's own checkpoints: what is
done is known from the files.

Source: ray.data.Dataset.map_batches, Ray 2.60 (https://docs.ray.io/en/releases-2.60.0/data/api/).
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import socket
import sys
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple

from rtda_deploy import __version__, errors
from rtda_deploy.errors import ConfigError, DeviceError, RtdaError
from rtda_deploy.optional import require
from rtda_deploy.spec import ModelSpec
from rtda_runtime.fleet.fingerprint import Fingerprint
from rtda_runtime.fleet.labelling import opened_here
from rtda_runtime.fleet.units import Unit
from rtda_runtime.fleet.worker import Job, Worker

__all__ = ["RayWay", "UnitLabeler"]

_ADDRESS = "RAY_ADDRESS"
# Read when Ray is imported: no bars beside ours, no report to its makers, no notes on its own innards.
_QUIET = {
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
}
_PURPOSE = "to label on a cluster"
_REACHED_S = 5.0  # a head that does not take a connection for so long is not there
_MOST_BLOCKS = 10_000  # a block is a task; Ray's own scheduler slows beyond that many
_STORE_BYTES = 100_000_000  # of a cluster made here; Ray's least is 75 MB, and no pixel goes there
_LOOKED_S = 60.0  # a machine that does not answer for so long is left out of the look


class UnitLabeler:
    """The actor: a :class:`Worker` between Ray's batches.

    Args:
        job: What to label with, and where to.
    """

    def __init__(self, job: Job) -> None:
        self._worker = Worker(job)

    def __call__(self, batch: Dict[str, Any]) -> Dict[str, List[str]]:
        """Label the units of a batch; an error travels as text, because Ray would end the run with it."""
        return {"summary": [json.dumps(self._label(str(text))) for text in batch["unit"]]}

    def _label(self, text: str) -> Dict[str, Any]:
        try:
            return self._worker.label(Unit.of(json.loads(text)))
        except RtdaError as err:
            return _error_values(err)


class RayWay:
    """Labels on Ray; given to :func:`rtda_runtime.fleet.labelling.label_footage` as its way.

    Args:
        workers: The most actors; None: as many as the cluster's CPUs (or GPUs) hold.
        gpu: The share of a GPU that each has; 0: none.
        threads: CPUs of each; its engine has as many threads, where the job does not say another number.

    Raises:
        ConfigError: If the cluster's address is a client's.
        DeviceError: If nobody listens there. Both are told before the footage is looked at, and Ray is imported.
        MissingPackageError: If Ray is not installed.
    """

    def __init__(self, *, workers: Optional[int] = None, gpu: float = 0.0, threads: int = 1) -> None:
        imported: Any = sys.modules.get("ray")
        if imported is None or not imported.is_initialized():  # else our caller has a cluster of its own
            _check_address(_address())
        for name, value in _QUIET.items():
            os.environ.setdefault(name, value)
        self._ray: Any = require("ray", extra="fleet", purpose=_PURPOSE)
        require("ray.data", extra="fleet", purpose=_PURPOSE)
        self._workers, self._gpu, self._threads = workers, gpu, threads

    def __call__(self, job: Job, units: Sequence[Unit], tell: Callable[[int], None]) -> Iterator[Dict[str, Any]]:
        """Summaries of the units, in the order in which they end.

        Raises:
            DeviceError: If the cluster is not there, lacks what is needed, or is lost; if one of its machines would
                make other labels than the one that made the plan.
            RtdaError: What a worker could not go on with, such as a full disk.
        """
        job = self._with_threads(job)
        # Ray prints notices of its machines to stdout, which is for results.
        with contextlib.redirect_stdout(sys.stderr), _cluster(self._ray):
            self._check_machines(job)
            with _lost(self._ray):
                # Blocks as they come: anything that is fetched ahead would hold back what is done already.
                for block in self._dataset(job, units).iter_batches(batch_size=None, prefetch_batches=0):
                    for text in block["summary"]:
                        values = json.loads(str(text))
                        if "error" in values:
                            raise _told_error(values)
                        yield values

    def opened(self, job: Job, probes: Sequence[str]) -> Tuple[ModelSpec, Fingerprint]:
        """What the model is, and what a machine of the cluster with room for a worker makes of the probes.

        For a plan that is made where a worker cannot be, such as on a head without a GPU; given to
        :func:`rtda_runtime.fleet.labelling.label_footage` as ``opened``. Errors as of calling.
        """
        with contextlib.redirect_stdout(sys.stderr), _cluster(self._ray):
            self._check_machines(job)
            self._most()
            place = {"num_gpus": self._gpu, "num_cpus": 0} if self._gpu else {"num_cpus": self._threads}
            task = self._ray.remote(max_retries=0, **place)(_opened_there)
            with _lost(self._ray):
                values = json.loads(self._ray.get(task.remote(self._with_threads(job), tuple(probes))))
        if "error" in values:
            raise _told_error(values)
        return ModelSpec.from_json(values["spec"]), Fingerprint.from_json(values["machine"])

    def _with_threads(self, job: Job) -> Job:
        return job if job.threads else dataclasses.replace(job, threads=self._threads)

    def _dataset(self, job: Job, units: Sequence[Unit]) -> Any:
        data: Any = self._ray.data
        context = data.DataContext.get_current()
        context.enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        items = [{"unit": json.dumps(unit.to_dict(), ensure_ascii=False)} for unit in units]
        most = min(self._most(), len(units))
        given = data.from_items(items, override_num_blocks=min(len(items), _MOST_BLOCKS))
        return given.map_batches(
            UnitLabeler,
            fn_constructor_args=(job,),
            batch_size=1,
            compute=data.ActorPoolStrategy(min_size=1, max_size=most, initial_size=most),
            **({"num_gpus": self._gpu} if self._gpu else {"num_cpus": self._threads}),
        )

    def _most(self) -> int:
        """How many actors the cluster holds.

        Raises:
            DeviceError: If it holds none.
        """
        have = self._ray.cluster_resources()
        kind, each = ("GPU", self._gpu) if self._gpu else ("CPU", float(self._threads))
        holds = int(have.get(kind, 0.0) / each + 1e-6)
        if not holds:
            raise DeviceError(
                f"a worker takes {each:g} {kind}, the cluster has {have.get(kind, 0.0):g}",
                hint="leave --gpu away to label on CPUs" if self._gpu else "type fewer --threads",
            )
        return min(holds, self._workers or holds)

    def _check_machines(self, job: Job) -> None:
        """Ask every machine what it has, before a unit is given out."""
        found = _looked_at(self._ray, (job.model, job.out))
        for host, version, missing in found:
            if version != __version__:
                has = f"has {version}" if version else "lacks the package"
                raise DeviceError(
                    f"machine {host} of the cluster {has}, this is rtda-deploy {__version__}",
                    hint=f"there: pip install 'rtda-deploy[runtime]=={__version__}'; or see docs/fleets.md",
                )
            if missing:
                raise DeviceError(
                    f"machine {host} of the cluster does not see {missing[0]}",
                    hint="model, footage and --out must lie on a disk that all machines share, under the same path",
                )


@contextlib.contextmanager
def _cluster(ray: Any) -> Iterator[None]:
    """Connect to the cluster, or make one here; left or ended with the block."""
    address = _address()
    if ray.is_initialized():  # the program that called us did; it is its own
        yield
        return
    _check_address(address)
    here = {"num_cpus": os.cpu_count(), "object_store_memory": _STORE_BYTES, "include_dashboard": False}
    try:
        ray.init(
            address=address,
            log_to_driver=False,
            logging_level=logging.ERROR,
            **(here if address == "local" else {}),
        )
    except (OSError, RuntimeError, ValueError) as err:
        raise _not_there(address, str(err).strip().splitlines()[0] if str(err).strip() else "") from err
    try:
        yield
    finally:
        ray.shutdown()


def _address() -> str:
    return os.environ.get(_ADDRESS) or "local"


def _check_address(address: str) -> None:
    """See that somebody listens, which Ray itself tries for minutes."""
    if "://" in address:
        raise ConfigError(
            f"{_ADDRESS}={address} is a client's address: pictures would be looked for here, masks written here",
            hint="send the command to the cluster: ray job submit -- rtda-deploy label ...   (docs/fleets.md)",
        )
    host, colon, port = address.rpartition(":")
    if not colon:
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), _REACHED_S).close()
    except (OSError, ValueError) as err:
        raise _not_there(address, getattr(err, "strerror", None) or str(err)) from err


def _not_there(address: str, why: str) -> DeviceError:
    return DeviceError(
        f"there is no Ray cluster at {address}",
        why=why,
        hint=f"start one: ray start --head   (tokens: set RAY_AUTH_TOKEN; without {_ADDRESS}, one is made here)",
    )


@contextlib.contextmanager
def _lost(ray: Any) -> Iterator[None]:
    try:
        yield
    except ray.exceptions.RayError as err:
        lines = [line.strip() for line in str(err).splitlines() if line.strip()]
        raise DeviceError(
            "the cluster could not go on",
            why=lines[-1] if lines else type(err).__name__,
            hint="what is done stays done: type the same command again",
        ) from err


def _looked_at(ray: Any, paths: Tuple[str, ...]) -> List[Tuple[str, str, List[str]]]:
    """Of each machine: its name, the version of this package there (empty: none), and which paths it does not see."""

    def look(wanted: Tuple[str, ...]) -> Tuple[str, str, List[str]]:
        # Defined in a function, so that its code travels: a machine without the package must run it.
        import importlib
        import os
        import socket

        try:
            importlib.import_module("rtda_runtime.fleet.worker")
            version = str(importlib.import_module("rtda_deploy").__version__)
        except ImportError:
            version = ""
        return socket.gethostname(), version, [path for path in wanted if not os.path.exists(path)]

    task = ray.remote(num_cpus=0)(look)
    placed = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
    asked = [
        task.options(scheduling_strategy=placed(node["NodeID"], soft=False)).remote(paths)
        for node in ray.nodes()
        if node["Alive"]
    ]
    done, _ = ray.wait(asked, num_returns=len(asked), timeout=_LOOKED_S)
    with _lost(ray):
        found: List[Tuple[str, str, List[str]]] = ray.get(done)
    return found


def _opened_there(job: Job, probes: Sequence[str]) -> str:
    """Of :meth:`RayWay.opened`, on the machine that was chosen: both as JSON, or the error."""
    try:
        spec, machine = opened_here(job, probes)
    except RtdaError as err:
        return json.dumps(_error_values(err))
    return json.dumps({"spec": spec.to_json(), "machine": machine.to_json()})


def _error_values(err: RtdaError) -> Dict[str, str]:
    return {"error": type(err).__name__, "message": err.message, "why": err.why, "hint": err.hint}


def _told_error(values: Dict[str, str]) -> RtdaError:
    """The error that a worker could not go on with."""
    kind = getattr(errors, values["error"], RtdaError)
    found: RtdaError = kind(values["message"], why=values["why"], hint=values["hint"])
    return found
