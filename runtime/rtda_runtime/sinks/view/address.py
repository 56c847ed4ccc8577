"""Where the view listens: what may be typed after ``--view``, and who can then look."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import ipaddress
import re
import socket

from rtda_deploy.errors import ConfigError, DeviceError
from rtda_deploy.masking import mask_password
from rtda_runtime.sinks.http import is_loopback, outward_host

__all__ = ["ViewAddress", "listen", "parse_address", "view_url"]

_PORT = 8080
_AUTO_PORTS = 100  # "auto" tries so many from 8080 on, then any
_LAST_PORT = 65535
_BACKLOG = 64
_SEND_BUFFER_B = 256 << 10  # the kernel holds so much per client that reads slowly; a picture or two
_EXAMPLES = "--view :8080 (this machine only), --view 0.0.0.0:8080 (others too, with a token in the URL)"
_TYPED = re.compile(r"(?:http://)?(?:\[(?P<six>[^\]]+)\]|(?P<host>[^:/\[\]@?#]*))(?::(?P<port>\d+))?/?")


@dataclasses.dataclass(frozen=True)
class ViewAddress:
    """An address as it was meant.

    Attributes:
        host: An IP address; names are resolved.
        port: 0: any free one.
        search: The port was not typed: take the next free one from ``port`` on.
    """

    host: str
    port: int
    search: bool = False

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach it; then no token is needed."""
        return is_loopback(self.host)

    @property
    def family(self) -> socket.AddressFamily:
        return socket.AF_INET6 if ":" in self.host else socket.AF_INET


def parse_address(text: str) -> ViewAddress:
    """Read ``auto``, ``:8080``, ``0.0.0.0:8080``, ``192.168.1.20:8080``, ``[::1]:8080``, ``localhost:8080``.

    Raises:
        ConfigError: If it is none of them, or the name is not known.
    """
    if text.strip() == "auto":
        return ViewAddress("127.0.0.1", _PORT, search=True)
    match, text = _TYPED.fullmatch(text.strip()), mask_password(text)
    host = match and (match.group("six") or match.group("host"))
    port = match and match.group("port")
    if host and host.isdecimal() and not port:  # it would be read as the address 0.0.31.144
        raise ConfigError(f"--view {text!r} is no address", hint=f"a port alone is typed as --view :{host}")
    if not host and not port:
        raise ConfigError(f"--view {text!r} is no address", hint=_EXAMPLES)
    if port and int(port) > _LAST_PORT:
        raise ConfigError(f"--view {text!r}: ports end at {_LAST_PORT}", hint=_EXAMPLES)
    return ViewAddress(_ip(host or "127.0.0.1", text), int(port or _PORT))


def listen(address: ViewAddress) -> socket.socket:
    """A socket that listens there.

    Raises:
        DeviceError: If the port is taken, needs rights, or no interface has the address.
    """
    ports = [*range(address.port, address.port + _AUTO_PORTS), 0] if address.search else [address.port]
    for port in ports:
        try:
            return _listen(address.family, address.host, port)
        except OSError as err:
            if err.errno != errno.EADDRINUSE or port == ports[-1]:
                raise _refused(err, address, port) from err
    raise AssertionError("the last port either listens or raises")


def view_url(address: ViewAddress, port: int, token: str) -> str:
    """What to type into a browser; for "all interfaces" the address by which others most likely reach this machine."""
    return f"http://{outward_host(address.host)}:{port}/" + (f"?token={token}" if token else "")


def _listen(family: socket.AddressFamily, host: str, port: int) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a view that ended a second ago holds no port
        made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_B)  # accepted sockets inherit it
        made.bind((host, port))
        made.listen(_BACKLOG)
    except BaseException:
        made.close()
        raise
    return made


def _ip(host: str, text: str) -> str:
    with contextlib.suppress(ValueError):
        return str(ipaddress.ip_address(host.partition("%")[0]))
    try:
        found = socket.getaddrinfo(host, None, socket.AF_INET, socket.SOCK_STREAM)
    except (OSError, UnicodeError) as err:
        raise ConfigError(f"--view {text!r}: no machine is called {host!r}", hint=_EXAMPLES) from err
    return str(found[0][4][0])


def _refused(err: OSError, address: ViewAddress, port: int) -> DeviceError:
    where = f"{address.host}:{port}"
    if err.errno == errno.EADDRINUSE:
        return DeviceError(
            f"the view cannot listen on {where}: the port is taken",
            why="another program listens there",
            hint=f"--view auto takes the next free port; ss -ltnp 'sport = :{port}' shows who has this one",
        )
    if err.errno in (errno.EACCES, errno.EPERM):
        return DeviceError(
            f"no permission to listen on {where}",
            why="ports below 1024 are for root" if port < 1024 else "",
            hint="--view :8080 needs no rights",
        )
    if err.errno == errno.EADDRNOTAVAIL:
        return DeviceError(
            f"the view cannot listen on {where}: this machine does not have that address",
            hint="--view 0.0.0.0:8080 listens on all it has; `ip address` lists them",
        )
    return DeviceError(f"the view cannot listen on {where}: {err.strerror or err}", hint=_EXAMPLES)
