"""Names of this machine, as browsers say them: any web page can give its own name our address."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Collection


def is_ours(host: str, names: Collection[str] = ()) -> bool:
    """Whether a Host header means this machine: localhost, its own name, one of ``names``.

    Numbers always do: a page of another site has a name. names: in small letters.
    """
    name, _, port = host.lower().rpartition(":")
    if not name or not port.isdigit():
        name = host.lower()
    try:
        ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return name in ("localhost", socket.gethostname().lower(), *names)
    return True
