"""Which addresses only this machine reaches: what the view and the publishers ask before they let others look."""

from __future__ import annotations

import ipaddress
import socket

__all__ = ["is_loopback", "outward_host"]

_UNROUTED = ("192.0.2.1", 9)  # TEST-NET-1 of RFC 5737: connecting a datagram socket sends nothing


def is_loopback(host: str) -> bool:
    """Whether ``host``, a name or an IP address, can mean nothing but this machine (names: RFC 6761)."""
    name = host.lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def outward_host(host: str) -> str:
    """``host`` as it stands in a URL; for "all interfaces" the address by which others most likely reach this one."""
    try:
        everywhere = ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return host
    if everywhere:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect(_UNROUTED)
                host = str(probe.getsockname()[0])
            except OSError:  # no network at all
                host = "127.0.0.1"
    return f"[{host}]" if ":" in host else host
