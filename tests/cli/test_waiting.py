"""Threads of torch give a busy core back soon; a user's own setting stays."""

import os
import subprocess
import sys

import pytest

_SHOW = """
import os, sys
from rtda_deploy.cli import main
sys.argv = ["rtda-deploy", "--version"]
try:
    main()
except SystemExit:
    print(os.environ.get("GOMP_SPINCOUNT"), os.environ.get("OMP_WAIT_POLICY"))
"""


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({}, "1000 None"),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, "None ACTIVE"),
        ({"GOMP_SPINCOUNT": "7"}, "7 None"),
    ],
)
def test_the_command_line_shortens_openmps_spinning_unless_the_user_sets_it(given, wanted):
    kept = {name: text for name, text in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    done = subprocess.run(
        [sys.executable, "-c", _SHOW], env={**kept, **given}, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == wanted
