"""Which pages may open a stream. Owns only the rule: strings in, a refusal or nothing out.

Browsers send `Origin` with every WebSocket request. Other programs send none and are admitted, since they could send
anything anyway. A page must come from the host that it connects to, and that host must be an address, "localhost" or
one of the server's configured names. An unknown name proves nothing: an attacker can make any name resolve to this
server (DNS rebinding), and the attacker's page would then seem to come from the same host. Pages from other origins
must be allowed one by one.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from urllib.parse import urlsplit

from server.errors import OriginRefusedError

DEFAULT_PORTS = {"http": 80, "https": 443}

Origin = tuple[str, str, int]  # scheme, host, port


def check_origin(
    origin: str | None, host_header: str, allowed_origins: Collection[str], allowed_hosts: Collection[str]
) -> None:
    """Raise OriginRefusedError unless a page from `origin` may connect to this server."""
    if origin is None or "*" in allowed_origins:
        return
    page = parse_origin(origin)
    if page is None:
        raise OriginRefusedError(f"{origin[:200]!r} is not the origin of a page, such as https://play.example.org")
    allowed = {parse_origin(each) for each in allowed_origins}
    if page in allowed:
        return
    scheme, host, _ = page
    own_names = {name.strip().lower().rstrip(".") for name in allowed_hosts} | {each[1] for each in allowed if each}
    is_ours = host == "localhost" or _is_address(host) or host in own_names
    if page == parse_origin(f"{scheme}://{host_header}"):
        if is_ours:
            return
        raise OriginRefusedError(
            f"{host[:200]!r} is not a name of this server; start it with --allow-host {host[:200]}"
        )
    raise OriginRefusedError(
        f"pages from {origin[:200]!r} may not connect; start the server with --allow-origin for it"
    )


def parse_origin(origin: str) -> Origin | None:
    """Return scheme, host and port of an http(s) origin in any spelling, or None for anything else."""
    try:
        parts = urlsplit(origin.strip())
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    is_bare = parts.path in ("", "/") and not parts.query and not parts.fragment and "@" not in parts.netloc
    if parts.scheme not in DEFAULT_PORTS or not host or not is_bare:
        return None
    return parts.scheme, host.rstrip("."), DEFAULT_PORTS[parts.scheme] if port is None else port


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
