"""What our commands ask of the network and leave in a home: an audit of system calls, children included."""

from __future__ import annotations

import ipaddress
import re
import shutil
import subprocess
from pathlib import Path
from typing import List

import pytest
from cli.commandline import arguments, environment
from runtime.models import write_model

from rtda_deploy.optional import available

pytestmark = [
    pytest.mark.system,
    pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed"),
]

_OURS = (".cache/rtda-deploy/", ".cache/matplotlib/")  # matplotlib: a list of this machine's fonts
_TOLD_NOT_TO = ("CI", "TF_BUILD", "JENKINS_URL", "ORT_DISABLE_TELEMETRY")  # what would keep the libraries quiet here
_SENT = re.compile(r"\b(?:connect|sendto|sendmsg|sendmmsg)\(.*?sin6?_port=htons\((\d+)\).*?\"([0-9a-f.:]+)\"")


def _destinations(trace: str) -> List[str]:
    """Where the calls of an strace log went that are no address of this machine; name servers everywhere."""
    found = [(int(port), ipaddress.ip_address(host)) for port, host in _SENT.findall(trace)]
    return [f"{host} port {port}" for port, host in found if port == 53 or not host.is_loopback]


def test_the_audit_itself_sees_a_connection() -> None:
    trace = """
7 connect(6, {sa_family=AF_INET, sin_port=htons(443), sin_addr=inet_addr("192.0.2.7")}, 16) = 0
7 connect(6, {sa_family=AF_INET, sin_port=htons(53), sin_addr=inet_addr("127.0.0.53")}, 16) = 0
7 connect(6, {sa_family=AF_INET6, sin6_port=htons(443), sin6_flowinfo=htonl(0), inet_pton(AF_INET6, "2001:db8::1", ...
7 connect(6, {sa_family=AF_INET, sin_port=htons(8080), sin_addr=inet_addr("127.0.0.1")}, 16) = 0
7 sendto(6, "\\1", 1, 0, {sa_family=AF_INET, sin_port=htons(7446), sin_addr=inet_addr("224.0.0.224")}, 16) = 1
"""
    assert _destinations(trace) == [
        "192.0.2.7 port 443",
        "127.0.0.53 port 53",
        "2001:db8::1 port 443",
        "224.0.0.224 port 7446",
    ]


@pytest.mark.parametrize(
    "words",
    [
        "run tiny.onnx --camera test://bars --max-frames 3 --provider cpu --save out.mp4",
        "run tiny.onnx --camera test://bars --max-frames 3 --provider openvino",
        "run tiny.onnx --camera test://bars --max-frames 3 --view auto --publish foxglove://127.0.0.1:0",
        "run tiny.onnx --camera test://bars --max-frames 3 --publish mcap:out.mcap --publish zenoh",
        "bench tiny.onnx --duration 0.2",
        "doctor",
        "train source-only --source toytown:source --target toytown:target --set steps=1 --set size=64x64 --out out",
    ],
)
def test_nothing_leaves_this_machine_and_nothing_strange_stays_in_the_home(words: str, tmp_path: Path) -> None:
    if "openvino" in words and not available("openvino"):
        pytest.skip("OpenVINO is not installed")
    home, cwd, trace = tmp_path / "home", tmp_path / "cwd", tmp_path / "trace"
    home.mkdir()
    cwd.mkdir()
    write_model(cwd / "tiny.onnx")
    clean = {name: value for name, value in environment(HOME=str(home)).items() if name not in _TOLD_NOT_TO}
    done = subprocess.run(
        ["strace", "-f", "-o", str(trace), "-e", "trace=connect,sendto,sendmsg,sendmmsg", *arguments(), *words.split()],
        cwd=cwd,
        env={**clean, "XDG_CACHE_HOME": "", "RTDA_CACHE": ""},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert _destinations(trace.read_text(errors="replace")) == []
    left = [str(path.relative_to(home)) for path in home.rglob("*") if path.is_file()]
    assert [name for name in left if not name.startswith(_OURS)] == []
