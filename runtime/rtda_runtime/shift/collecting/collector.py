"""The sink that collects: looks at results and chooses, on a thread of its own; :mod:`.keeping` keeps what it chose."""

from __future__ import annotations

import logging
import random
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Set, Union
from urllib.parse import parse_qsl

from rtda_deploy.errors import ConfigError, FileAccessError
from rtda_deploy.files import sha256_file
from rtda_deploy.spec import ModelSpec
from rtda_runtime._opencv import opencv
from rtda_runtime.mask.groups import class_hint, class_index
from rtda_runtime.pool import AnySegmenter
from rtda_runtime.result import Result
from rtda_runtime.shift.collecting.expression import Expression
from rtda_runtime.shift.collecting.familiarity import Familiarity, familiarity_of
from rtda_runtime.shift.collecting.keeping import Keeper
from rtda_runtime.shift.collecting.limits import CollectOptions
from rtda_runtime.shift.collecting.look import Look, Novelty, look_at
from rtda_runtime.shift.collecting.record import Origin, dhash_of_line
from rtda_runtime.shift.collecting.store import FrameStore
from rtda_runtime.shift.collecting.window import Candidate, Window
from rtda_runtime.sinks.base import Sink
from rtda_runtime.sinks.kinds import SinkContext, sink_kind

__all__ = ["Collector", "opener"]

_MISSING = {  # what gives results a value that an expression needs
    "confidence": "Segmenter.open(..., confidence=True)   (run --confidence)",
    "disagreement": "Pipeline.open(..., shadow=MODEL2), or compare=MODEL2   (run --shadow MODEL2)",
}
_log = logging.getLogger(__name__)


def opener(address: str, context: SinkContext) -> Callable[[], Collector]:
    """What opens the folder of ``run --collect``: ``DIR?minute=6&disk=5GB&when=…&blur=person,car``."""
    match = sink_kind("collect", address).match(address)
    assert match is not None
    typed = dict(parse_qsl((match["query"] or "").replace("+", "%2B"), keep_blank_values=True))
    when = typed.pop("when", "")
    blur = tuple(name.strip() for name in typed.pop("blur", "").split(",") if name.strip())
    options = CollectOptions.typed(typed, when=when, blur=blur)

    def opened() -> Collector:
        where: Dict[str, Any] = {"source": context.source, "model": context.model, "model_file": context.model_file}
        return Collector(match["path"], context.spec, options, engine=context.engine, **where)

    return opened


class Collector(Sink):
    """Keeps the frames that the next training needs, in a folder that is a data set.

    ::

        from rtda_runtime import Collector, CollectOptions, Pipeline, Segmenter

        with Segmenter.open("model.onnx") as segmenter:
            collector = Collector("hard", segmenter.spec, CollectOptions(per_minute=12))
            with Pipeline.open(segmenter, source="0", sinks=[collector]) as pipeline:
                pipeline.join()

    Each stretch of time gives one frame at most, the most valuable: novelty times disagreement, and unlike those that
    are kept; frames that ``options.when`` asks for go before all others, new or not. Where there is no more room, the
    least valuable one of the folder gives way. In a pipeline it takes the newest result whenever it is ready, and the
    others are counted as its drops. When the disk is full it stops, with one warning; the pipeline goes on.

    Args:
        folder: Made where it is missing; one that was collected before is filled further.
        spec: Of the results: class names and palette.
        options: Limits, expression, classes to blur; None: the usual ones.
        source: What the frames are of, for their lines.
        model: What the network is called, for their lines.
        model_file: Its SHA-256 stands in the lines, and novelty is counted from the footage of its card, if it was
            exported with ``--monitor``; None: neither.
        engine: Opens a second engine of the same network, with ``confidence=True`` where it can; called once, on the
            collector's thread. None: frames are judged by what the results hold.
        seed: Of the random numbers; None: others each time.

    Attributes:
        stopped: Why it stopped collecting; empty: it did not.

    Raises:
        ConfigError: If the expression does not parse, a class is unknown, or the folder is another's.
        FileAccessError: If the folder cannot be written to.
    """

    name = "collect"
    keeps = False
    finishes = True
    after_shadow = True
    nice = 10  # a tenth of a core that the loop wants

    def __init__(
        self,
        folder: Union[str, Path],
        spec: ModelSpec,
        options: Optional[CollectOptions] = None,
        *,
        source: str = "",
        model: str = "",
        model_file: Union[str, Path, None] = None,
        engine: Optional[Callable[[], AnySegmenter]] = None,
        seed: Optional[int] = None,
    ) -> None:
        opencv("to collect frames")
        self._options = options or CollectOptions()
        self._when = Expression(self._options.when, spec.class_names) if self._options.when else None
        blurred = [_class(name, spec) for name in self._options.blur]
        self._store = FrameStore(folder, spec)
        self._keeper = Keeper(self._store, self._options, blurred, engine)
        self._window = Window(self._options, random.Random(seed))
        self._had: Set[str] = set()  # values that results have had
        self._novelty = Novelty()
        self._familiarity: Optional[Familiarity] = None
        self._model_file = model_file
        self._names = (source, model)
        self._begun = self._closed = False
        self.stopped = ""
        self.note = f"{folder}   {len(self._store.lines)} frames there"

    def write(self, result: Result) -> Mapping[str, float]:
        """Look at a result; write the best of a stretch of time that ended with it.

        Raises:
            ConfigError: If the expression needs a value that the results do not have.
        """
        if self.stopped:
            return {}
        self._begin()
        start = time.perf_counter_ns()
        look = look_at(result)
        novelty = self._novelty_of(result, look)
        values = {**look.values, "novelty": novelty}
        asked = self._when is not None and self._holds(self._when, values, look.shares)
        unsure = [1.0 - values["confidence"]] if "confidence" in values else []
        unsure += [values["disagreement"]] if "disagreement" in values else []
        value = novelty * max(unsure, default=1.0)
        at_s = (result.captured_ns if result.recorded_ns is None else result.recorded_ns) / 1e9
        looked = time.perf_counter_ns()
        ended = self._window.ended(at_s)
        if ended:
            self._keep_best(ended)
        if self._window.wants(look, value, at_s, asked=asked):
            why = "asked" if asked else "hard"
            self._window.offer(Candidate(result.copy(), look, novelty, value, why, at_s))
        kept = {"keep": (time.perf_counter_ns() - looked) / 1e6} if ended else {}
        return {"look": (looked - start) / 1e6, **kept}

    def details(self) -> Mapping[str, Any]:
        """``kept``, ``replaced`` and ``not_worth`` in this run; ``frames`` and ``bytes`` in the folder; ``stopped``."""
        told = {"frames": len(self._store.sizes), "bytes": self._store.bytes, "stopped": self.stopped or None}
        return {**self._keeper.counts, **told, "folder": str(self._store.folder)}

    def close(self) -> None:
        """Keep the best of the stretch of time that did not end, and let go of the folder."""
        if self._closed:
            return
        self._closed = True
        try:
            rest = self._window.rest()
            if rest and not self.stopped:
                self._keep_best(rest[:1])
        finally:
            self._keeper.close()
            self._store.close()

    def _begin(self) -> None:
        """What takes a while, on the collector's own thread: the hash of the model, what the frames there look like."""
        if self._begun:
            return
        self._begun = True
        for line in self._store.lines.values():
            self._window.remember(dhash_of_line(line))
        self._familiarity = None if self._model_file is None else familiarity_of(self._model_file)
        source, model = self._names
        digest: Optional[str] = None
        try:
            digest = sha256_file(self._model_file) if self._model_file is not None else None
        except FileAccessError as err:
            _log.warning("collected frames do not say the model's sha256: %s", err)
        self._keeper.origin = Origin(source, model, digest, self._options.when)

    def _novelty_of(self, result: Result, look: Look) -> float:
        """By the card of a monitored network, else by the frames of this run."""
        of_run = self._novelty.of(look.vector)
        if self._familiarity is None or result.monitor is None:
            return of_run
        of_card = self._familiarity.of(result.monitor)
        return of_run if of_card is None else of_card

    def _holds(self, when: Expression, values: Mapping[str, float], shares: Any) -> bool:
        """False of a result that lacks a value which others had, such as when a shadow has failed."""
        self._had |= set(values)
        missing = sorted(when.names - self._had)
        if missing:
            raise ConfigError(f"results have no {missing[0]}, which {when.text!r} needs", hint=_MISSING[missing[0]])
        return when.names <= set(values) and when.holds(values, shares)

    def _keep_best(self, candidates: List[Candidate]) -> None:
        """Keep the most valuable of these, if it is worth a place; a disk that refuses ends the collecting."""
        try:
            kept = self._keeper.keep_best(candidates)
        except FileAccessError as err:
            self.stopped = err.message
            fix = f"; {err.hint}" if err.hint else ""
            _log.warning("collecting stopped: %s%s", err.message, fix)
        else:
            if kept is not None:
                self._window.kept(kept)


def _class(name: str, spec: ModelSpec) -> int:
    """The index of a class to blur.

    Raises:
        ConfigError: If there is none of this name.
    """
    found = class_index(name, spec.class_names)
    if found is None:
        raise ConfigError(f"there is no class {name!r} to blur", hint=class_hint(name, spec.class_names))
    return found
