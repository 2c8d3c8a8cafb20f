"""Who asks whom: names of this machine, as browsers say them, and addresses of clients."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Collection


def is_ours(host: str, names: Collection[str] = ()) -> bool:
    """Whether a Host header means this machine: localhost, its own name, one of ``names``.

    Any web page can give its own name our address. Numbers always mean us: a page of another site
    has a name. names: in small letters.
    """
    name, _, port = host.lower().rpartition(":")
    if not name or not port.isdigit():
        name = host.lower()
    try:
        ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return name in ("localhost", socket.gethostname().lower(), *names)
    return True


def client_at(client: tuple[str, int] | None) -> str:
    """One string for all addresses of a client: of IPv6 it has the 2⁶⁴ that begin alike.

    client: address and port, as in an ASGI scope.
    """
    address = client[0] if client else ""
    try:
        number = ipaddress.ip_address(address)
    except ValueError:
        return address
    # A server that listens to both kinds sees IPv4 addresses as parts of one network of IPv6.
    if number.version == 6 and number.ipv4_mapped:
        return str(number.ipv4_mapped)
    return address if number.version == 4 else f"{int(number) >> 64:x}::"
