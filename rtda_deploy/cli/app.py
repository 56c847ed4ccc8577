"""The verbs, put together."""

from __future__ import annotations

from typing import Any, Callable

import typer

from rtda_deploy import __version__
from rtda_deploy.cli import bench, cameras, demo, doctor, evaluate, export, inspect, run, train, verify

__all__ = ["build_app"]

_TRAIN, _DEPLOY, _HELP = "Train", "Deploy", "Look around"
_VERBS = (
    ("demo", demo.demo, _TRAIN),
    ("train", train.train, _TRAIN),
    ("eval", evaluate.evaluate, _TRAIN),
    ("export", export.export, _DEPLOY),
    ("verify", verify.verify, _DEPLOY),
    ("bench", bench.bench, _DEPLOY),
    ("run", run.run, _DEPLOY),
    ("inspect", inspect.inspect, _HELP),
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
        app.command(name, rich_help_panel=panel)(function)
    return app


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
    logging.basicConfig(format="%(levelname)-7s %(name)s: %(message)s", level=logging.WARNING)
    for package in ("rtda_deploy", "rtda_training", "rtda_export", "rtda_runtime"):
        logging.getLogger(package).setLevel(level)
