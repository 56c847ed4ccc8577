"""The command line. One thin module per verb; whatever does the work is imported when the verb runs.

Results go to stdout, everything else to stderr. Exit codes are those of ``rtda_deploy.errors``, 2 for wrong usage, and
130 after Ctrl-C.
"""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line and leave with its exit code."""
    from rtda_deploy.cli.app import build_app
    from rtda_deploy.cli.terminal.visible import never_fail_to_encode
    from rtda_deploy.cli.waiting import wait_briefly
    from rtda_deploy.errors import RtdaError

    never_fail_to_encode()
    wait_briefly()
    try:
        build_app()(prog_name="rtda-deploy")
    except RtdaError as err:
        from rtda_deploy.cli.terminal.console import print_error

        print_error(err)
        sys.exit(err.exit_code)
    except KeyboardInterrupt:  # while the command line itself was loading
        sys.exit(130)
