"""Which pages may open a stream. Owns the rule alone: strings in, yes or no out.

Browsers send `Origin` with every WebSocket; programs that are no browser send none and are let in (they could send
anything anyway). By default a page must come from the very host it connects to, and a server that listens on loopback
takes only pages of a loopback name, since a foreign name can be made to resolve to 127.0.0.1 (DNS rebinding).
"""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import urlsplit

from server.errors import OriginRefusedError

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


def check_origin(origin: str | None, host_header: str, bound_host: str, allowed: Collection[str]) -> None:
    """Raises OriginRefusedError unless a page of `origin` may connect to this server."""
    if origin is None or origin in allowed or "*" in allowed:
        return
    page = urlsplit(origin)
    same_host = page.scheme in ("http", "https") and page.netloc.lower() == host_header.lower()
    if same_host and (bound_host not in LOOPBACK or page.hostname in LOOPBACK):
        return
    raise OriginRefusedError(f"pages of {origin[:200]!r} may not connect; allow that origin in the server's settings")
