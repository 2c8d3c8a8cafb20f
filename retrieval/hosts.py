"""Names of this machine in requests of browsers, and the client behind an address."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Collection
from functools import lru_cache


def is_ours(host: str, names: Collection[str] = ()) -> bool:
    """Whether a Host header means this machine: localhost, its own name, one of ``names``.

    Any web page can give its own name the address of this machine. A host that is a number is
    always this machine, because a page of another site has a name. names: in small letters.
    """
    name, _, port = host.lower().rpartition(":")
    if not name or not port.isdigit():
        name = host.lower()
    try:
        ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return name in ("localhost", socket.gethostname().lower(), *names)
    return True


def client_of_peer(client: tuple[str, int] | None) -> str:
    """``client_of_address`` of an address and port, as a server has them of a connection."""
    return client_of_address(client[0] if client else None)


@lru_cache(4096)
def client_of_address(address: str | None) -> str:
    """The name of the client with this address: an IPv4 address, or an IPv6 network (/64).

    All addresses of one IPv6 /64 are one client. Connections without an address are one client.
    """
    try:
        number = ipaddress.ip_address(address or "")
    except ValueError:
        return address or ""
    # A server that listens to both kinds sees IPv4 addresses as parts of one network of IPv6.
    if number.version == 6 and number.ipv4_mapped:
        return str(number.ipv4_mapped)
    return str(number) if number.version == 4 else f"{int(number) >> 64:x}::"
