"""The verbs, put together."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from typing import Any, Callable

import typer

from rtda_deploy import __version__
from rtda_deploy.cli import (
    adapt,
    cameras,
    data,
    data_cvat,
    data_frames,
    doctor,
    estimate,
    evaluate,
    export,
    inspect,
    label,
    models,
    rank,
    tradeoff,
    verify,
)
from rtda_deploy.cli.bench import verb as bench
from rtda_deploy.cli.demo import verb as demo
from rtda_deploy.cli.run import verb as run
from rtda_deploy.cli.terminal.visible import visible, visible_output
from rtda_deploy.cli.train import verb as train

__all__ = ["build_app"]

_TRAIN, _DEPLOY, _HELP = "Train", "Deploy", "Look around"
_VERBS = (
    ("demo", demo.demo, _TRAIN),
    ("train", train.train, _TRAIN),
    ("adapt", adapt.adapt, _TRAIN),
    ("eval", evaluate.evaluate, _TRAIN),
    ("rank", rank.rank, _TRAIN),
    ("label", label.label, _TRAIN),
    ("export", export.export, _DEPLOY),
    ("verify", verify.verify, _DEPLOY),
    ("bench", bench.bench, _DEPLOY),
    ("tradeoff", tradeoff.tradeoff, _DEPLOY),
    ("run", run.run, _DEPLOY),
    ("inspect", inspect.inspect, _HELP),
    ("estimate", estimate.estimate, _HELP),
    ("cameras", cameras.cameras, _HELP),
    ("doctor", doctor.doctor, _HELP),
)


def build_app() -> Callable[..., Any]:
    """The typer application with every verb."""
    app = typer.Typer(
        help="From a labelled simulator and unlabelled robot footage to a real-time mask on the robot.",
        epilog="Start with: rtda-deploy demo",
        add_completion=True,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
    )
    app.callback()(_options)
    for name, function, panel in _VERBS:
        app.command(name, rich_help_panel=panel)(_in_order(function))
    group = typer.Typer(
        help="Check data sets, choose frames of footage, measure pseudo labels, translate pictures, correct in CVAT.",
        no_args_is_help=True,
    )
    for verb in (data.check, data_frames.frames, data.labels, data.translate, data_cvat.cvat):
        group.command(verb.__name__)(_in_order(verb))
    app.add_typer(group, name="data", rich_help_panel=_TRAIN)
    deployed = typer.Typer(help="Which model a robot runs: list, promote, roll back.", no_args_is_help=True)
    deployed.command("list")(_in_order(models.list_models))
    deployed.command("promote")(_in_order(models.promote))
    deployed.command("rollback")(_in_order(models.rollback))
    app.add_typer(deployed, name="models", rich_help_panel=_DEPLOY)
    return app


def _in_order(verb: Callable[..., None]) -> Callable[..., None]:
    """The verb, ended in order where a person or a pipe stops it: old typers would exit 1 with ``Aborted``."""

    @functools.wraps(verb)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            with visible_output():
                verb(*args, **kwargs)
            sys.stdout.flush()  # here, where what goes wrong can still be told
        except KeyboardInterrupt:
            print("\nstopped", file=sys.stderr)
            raise typer.Exit(130) from None
        except BrokenPipeError:  # `rtda-deploy … | head`: the reader has what it wanted
            _forget_stdout()
            raise typer.Exit(0) from None
        except OSError as err:
            from rtda_deploy.files import file_error

            _forget_stdout()  # or its buffer is tried again at exit
            raise file_error(err, err.filename or "the output", "read or write") from err

    return run


def _forget_stdout() -> None:
    with contextlib.suppress(OSError, ValueError):  # a stdout without a descriptor, as in tests
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"rtda-deploy {__version__}")
        raise typer.Exit


def _options(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
    verbose: bool = typer.Option(False, "--verbose", "-v", help="Log what the libraries do, to stderr."),
) -> None:
    import logging

    level = logging.DEBUG if verbose else logging.WARNING

    class Visible(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            return visible(super().format(record))

    logging.basicConfig(format="%(levelname)-7s %(name)s: %(message)s", level=logging.WARNING)
    for handler in logging.getLogger().handlers:
        if type(handler) is logging.StreamHandler:
            handler.setFormatter(Visible("%(levelname)-7s %(name)s: %(message)s"))
    for package in ("rtda_deploy", "rtda_training", "rtda_export", "rtda_runtime"):
        logging.getLogger(package).setLevel(level)
