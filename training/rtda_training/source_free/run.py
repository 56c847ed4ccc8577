"""An adaptation in a run folder: what must not be lost, what is gone on with, and the page at its end."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator
from pathlib import Path

from rtda_deploy.errors import ConfigError, RtdaError
from rtda_deploy.overwriting import refuse_overwriting
from rtda_deploy.run_folders import working_in
from rtda_training.loop.events import StopRequest, Tell
from rtda_training.readers import files_read
from rtda_training.run_folder import clear_run, progress_in, run_files
from rtda_training.source_free.adapting import AdaptResult, adapt_in
from rtda_training.source_free.request import RECORD, AdaptRequest, save_request

__all__ = ["adapt", "is_begun"]


def adapt(
    request: AdaptRequest,
    folder: Path,
    *,
    force: bool = False,
    on_event: Tell | None = None,
    stop: StopRequest | None = None,
) -> AdaptResult:
    """Adapt a network to footage; writes the run folder that ``rtda-deploy adapt`` does.

    Args:
        request: What is asked. One that ``read_request`` gave goes on with the run in the folder.
        folder: Gets ``best.pth``, ``ranking.json``, ``report.html``, ``MODEL_CARD.md``, ``verify/``, and where
            something is trained what a training writes.
        force: Throw an earlier run there away.
        on_event: Told of progress.
        stop: ``stop.ask()`` ends a training with a checkpoint.

    Raises:
        ConfigError: If the folder holds another run, or something read would be written over.
        RtdaError: As ``adapt_in``.
    """
    with working_in(folder):
        if not request.sha256:
            _refuse_losses(request, folder, force)
            clear_run(folder)
            request = save_request(request, folder)
            with _nothing_left_of_a_refusal(folder):
                result = adapt_in(request, folder, on_event=on_event, stop=stop)
        else:
            result = adapt_in(request, folder, on_event=on_event, stop=stop)
        from rtda_training.source_free.page import write_adapt_pages

        write_adapt_pages(request, result)
        return result


@contextlib.contextmanager
def _nothing_left_of_a_refusal(folder: Path) -> Iterator[None]:
    """Take the record of a run away that ends before anything is made: ``--resume auto`` would go on with it."""
    try:
        yield
    except RtdaError:
        if not progress_in(folder):
            clear_run(folder)
        raise


def is_begun(folder: Path) -> bool:
    """Whether there is a run that can be gone on with."""
    return (folder / RECORD).is_file()


def _refuse_losses(request: AdaptRequest, folder: Path, force: bool) -> None:
    found = "" if force else progress_in(folder)
    if found:
        resume = f"go on with it: rtda-deploy adapt --resume auto --out {shlex.quote(str(folder))}; or "
        raise ConfigError(
            f"{folder} holds a run ({found}), which a new one would overwrite",
            hint=f"{resume * is_begun(folder)}another --out; --force throws it away",
        )
    inputs = {request.model: "the model"}
    inputs.update(dict.fromkeys([*files_read(request.footage), *files_read(request.check)], "the footage"))
    refuse_overwriting([("the run" + " (--force)" * force, path) for path in run_files(folder)], inputs)
