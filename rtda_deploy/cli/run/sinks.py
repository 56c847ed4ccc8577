"""The sinks that ``rtda-deploy run`` was asked for."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, Optional, Tuple

if TYPE_CHECKING:
    from rtda_deploy.cli.run.screen import Screen
    from rtda_runtime import Overlay, Sink, Source
    from rtda_runtime.pool import AnySegmenter

__all__ = ["SinkChoice", "check_outputs", "open_sinks"]

_DEFAULT_FPS = 30.0  # of a video whose source names no rate


@dataclasses.dataclass(frozen=True)
class SinkChoice:
    """What was typed."""

    view: Optional[str] = None
    show: bool = False
    save: Optional[Path] = None
    masks: Optional[Path] = None
    publish: Tuple[str, ...] = ()
    alpha: float = 0.5
    outline: Optional[bool] = None

    @property
    def named(self) -> List[Tuple[str, Path]]:
        """The files and folders that will be written, each with the option that names it."""
        found = [(f"--publish {uri}", Path(uri.partition(":")[2])) for uri in self.publish if uri.startswith("mcap:")]
        return [(what, path) for what, path in (("--save", self.save), ("--masks", self.masks), *found) if path]

    @property
    def paths(self) -> List[Path]:
        """The files and folders that will be written."""
        return [path for _, path in self.named]


def check_outputs(choice: SinkChoice) -> None:
    """Check that no two sinks write to one place.

    Raises:
        ConfigError: If they do.
    """
    from rtda_deploy.errors import ConfigError
    from rtda_deploy.masking import mask_password

    taken: Dict[str, str] = {}
    for option, path in choice.named:
        real = os.path.realpath(path)
        if real in taken:
            raise ConfigError(f"{taken[real]} and {option} both write to {path}", hint="give each a place of its own")
        taken[real] = option
    for uri in choice.publish:
        if choice.publish.count(uri) > 1:
            raise ConfigError(f"--publish {mask_password(uri)} was given twice", hint="once is enough")


def open_sinks(
    stack: contextlib.ExitStack,
    choice: SinkChoice,
    segmenter: AnySegmenter,
    source: Source,
    screen: Screen,
    *,
    compared: Tuple[Path, Optional[Path]],
) -> List[Sink]:
    """Open what was asked for; what was opened is closed with ``stack``, unless a pipeline takes it over."""
    from rtda_runtime.sinks import MaskFolder, Overlay, VideoSink, WindowSink

    titles = (str(compared[0]), str(compared[1])) if compared[1] is not None else ("", "")
    spec, sinks = segmenter.spec, []

    def overlay() -> Overlay:  # one each: they draw in threads of their own
        return Overlay(spec, choice.alpha, titles=titles, outline=choice.outline)

    def add(sink: Sink) -> None:
        sinks.append(stack.enter_context(sink))

    if choice.show:
        add(WindowSink(overlay(), f"rtda-deploy · {source.name}", on_quit=screen.quit.set))
    if choice.view is not None:
        add(_view(choice, segmenter, source, screen, titles))
    if choice.save is not None:
        add(VideoSink(choice.save, source.fps or _DEFAULT_FPS, overlay=overlay(), timed=source.live))
    if choice.masks is not None:
        add(MaskFolder(choice.masks, source.names))
    for uri in choice.publish:
        add(_publisher(uri, segmenter, source))
    screen.snapshots_of(overlay())
    return sinks


def _view(choice: SinkChoice, segmenter: AnySegmenter, source: Source, screen: Screen, titles: Tuple[str, str]) -> Sink:
    from rtda_deploy.cli.terminal.console import note
    from rtda_runtime.sinks.view import ViewSink

    assert choice.view is not None
    title = f"{segmenter.path.name if segmenter.path else 'model'} · {source.name}"
    named: Dict[str, Any] = {"titles": titles} if any(titles) else {}
    named = {**named, "alpha": choice.alpha, "outline": choice.outline}
    view = ViewSink(choice.view, segmenter.spec, stats=screen.stats, title=title, **named)
    if "?" in view.url:
        who = "whoever has this URL can look"
    else:
        who = "this machine only; --view 0.0.0.0:8080 lets others look, with a token in the URL"
    note(f"view    {view.url}   ({who})")
    return view


def _publisher(uri: str, segmenter: AnySegmenter, source: Source) -> Sink:
    from rtda_deploy.cli.terminal.console import note
    from rtda_runtime.sinks.publish import open_publisher

    publisher = open_publisher(uri, segmenter.spec, name=source.name)
    note(f"publish {publisher.url}")
    return publisher
