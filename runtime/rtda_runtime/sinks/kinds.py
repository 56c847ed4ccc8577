"""The kinds of sink, one row each. Opening, help texts, errors, ``doctor`` and the check of what is written read it.

To add one: a module with an opener, and a row in :data:`SINK_KINDS` under the option of ``run`` that takes its
addresses. The opener is called with the address and a :class:`SinkContext`, and returns a function that opens the sink.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, List, Mapping, NamedTuple, Optional, Sequence, Tuple, cast

from rtda_deploy.errors import ConfigError
from rtda_deploy.optional import Package
from rtda_runtime.kinds import OPENCV, Kind, examples, find_kind

if TYPE_CHECKING:
    from rtda_deploy.spec import ModelSpec
    from rtda_runtime.pool import AnySegmenter
    from rtda_runtime.sinks.base import Sink
    from rtda_runtime.sinks.overlay import Overlay
    from rtda_runtime.sinks.publish.base import Publisher

__all__ = ["SINK_KINDS", "SinkContext", "SinkKind", "open_publisher", "open_sink", "sink_kind", "sinks_of", "written"]


def _nothing() -> None: ...


class SinkContext(NamedTuple):
    """What a sink may ask about the run that it is opened for.

    Attributes:
        spec: Class names and palette.
        source: What the source is called, without its password; people read it.
        model: What the model is called.
        fps: Frames per second of the source, where it says so.
        live: Whether the source is a camera.
        names: File names of the frames by their number; empty: there are none.
        titles: What to call the two networks of a comparison.
        alpha: Weight of the mask's colours in the overlay.
        outline: Lines around regions: True, False, or None: where they are hard to see.
        stats: The pipeline's statistics, as :attr:`Pipeline.stats`.
        on_quit: Called, from any thread, when a person asks for the end.
        model_file: The model's file.
        engine: Opens a second engine of the network, for a sink that looks at some frames again; None: it cannot.
    """

    spec: ModelSpec
    source: str
    model: str = "model"
    fps: Optional[float] = None
    live: bool = True
    names: Sequence[str] = ()
    titles: Tuple[str, str] = ("model A", "model B")
    alpha: float = 0.5
    outline: Optional[bool] = None
    stats: Callable[[], Mapping[str, Any]] = dict
    on_quit: Callable[[], None] = _nothing
    model_file: Optional[Path] = None
    engine: Optional[Callable[[], AnySegmenter]] = None

    def overlay(self) -> Overlay:
        """An overlay for one sink; it is not to be shared, because each sink draws in a thread of its own."""
        from rtda_runtime.sinks.overlay import Overlay

        return Overlay(self.spec, self.alpha, titles=self.titles, outline=self.outline)


@dataclasses.dataclass(frozen=True)
class SinkKind(Kind):
    """A row of the table. A group ``path`` in the pattern is the file or folder that is written.

    Attributes:
        option: The option of ``run`` that takes its addresses, without dashes.
    """

    option: str = ""


_NOT_HERE = "record with --publish mcap:drive.mcap, which Foxglove opens; or use the ROS node (docs/ros.md)"

# In the order in which a run opens them. Programs may append rows of their own.
SINK_KINDS: List[SinkKind] = [
    SinkKind(
        name="window",
        pattern="",
        example="",
        opener="rtda_runtime.sinks.window:opener",
        package=OPENCV,
        option="show",
    ),
    SinkKind(
        name="browser view",
        pattern=".*",
        example="auto, :8080, 0.0.0.0:8080",
        opener="rtda_runtime.sinks.view.sink:opener",
        package=OPENCV,
        option="view",
    ),
    SinkKind(
        name="film",
        pattern=r"(?P<path>.*\.(?i:mp4|webm))",
        example="overlay.mp4, overlay.webm",
        opener="rtda_runtime.sinks.video:opener",
        option="save",
    ),
    SinkKind(
        name="folder of masks",
        pattern=r"(?P<path>.*)",
        example="masks/",
        opener="rtda_runtime.sinks.masks:opener",
        package=OPENCV,
        option="masks",
    ),
    SinkKind(
        name="collected frames",
        pattern=r"(?P<path>.+?)(\?(?P<query>[a-z]+=.*))?",
        example="hard/",
        opener="rtda_runtime.shift.collecting.collector:opener",
        package=OPENCV,
        option="collect",
    ),
    SinkKind(
        name="Foxglove",
        pattern=r"foxglove(://.*)?",
        example="foxglove",
        opener="rtda_runtime.sinks.publish.foxglove:opener",
        package=Package("foxglove", "robotics", "publishing to Foxglove", ("foxglove-sdk",)),
        python=(3, 10),
        instead=_NOT_HERE,
        option="publish",
    ),
    SinkKind(
        name="Zenoh",
        pattern=r"zenoh(://.*)?",
        example="zenoh",
        opener="rtda_runtime.sinks.publish.zenoh:opener",
        package=Package("zenoh", "robotics", "publishing with Zenoh", ("eclipse-zenoh",)),
        python=(3, 9),
        instead=_NOT_HERE,
        option="publish",
    ),
    SinkKind(
        name="MCAP file",
        pattern=r"mcap(:(?P<path>.*))?",
        example="mcap:drive.mcap",
        opener="rtda_runtime.sinks.publish.mcap:opener",
        package=Package("mcap", "robotics", "MCAP files"),
        option="publish",
    ),
]


def sinks_of(option: str) -> List[SinkKind]:
    """The kinds that an option of ``run`` takes."""
    return [kind for kind in SINK_KINDS if kind.option == option]


def sink_kind(option: str, address: str) -> SinkKind:
    """The kind of an address.

    Raises:
        ConfigError: If it is of no known kind, naming an address of each.
    """
    kinds = sinks_of(option)
    kind = find_kind(kinds, address)
    if kind is None:
        from rtda_deploy.masking import mask_password  # no --help needs it

        raise ConfigError(f"--{option} does not know {mask_password(address)!r}", hint=f"known: {examples(kinds)}")
    return kind


def open_sink(option: str, address: str, context: SinkContext) -> Sink:
    """Open what an option of ``run`` names.

    Raises:
        ConfigError: If the address is of no known kind, or makes no sense.
        DeviceError: If there is no display, a port is taken, or the network refuses.
        FileAccessError: If a file or folder cannot be written.
        MissingPackageError: If the package behind it is not installed.
    """
    sink: Sink = sink_kind(option, address).opener_of(address, context)()
    return sink


def open_publisher(uri: str, spec: ModelSpec, *, name: str) -> Publisher:
    """Open what ``--publish`` names; errors as of :func:`open_sink`.

    Args:
        uri: ``foxglove[://HOST:PORT]``, ``zenoh[://KEY/PREFIX]`` or ``mcap:FILE``; ``docs/publish.md`` has the options.
        spec: Class names and palette.
        name: What the pictures show, such as the source's name without its password; people read it in Foxglove.
    """
    return cast("Publisher", open_sink("publish", uri, SinkContext(spec, source=name)))


def written(option: str, address: str) -> Optional[Path]:
    """The file or folder that a sink writes; None: it writes none.

    Raises:
        ConfigError: If the address is of no known kind.
    """
    match = sink_kind(option, address).match(address)
    path = match.groupdict().get("path") if match else None
    return Path(path) if path else None
