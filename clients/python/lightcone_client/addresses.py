"""From the address of a server to that of its stream, and the way there. Owns no connection."""

from __future__ import annotations

import ipaddress
import urllib.request
from urllib.parse import urlsplit, urlunsplit

STREAM_PATH = "/v1/stream"


def stream_url(url: str) -> str:
    """Return the stream's address for a server's: `http://host:8000/play/`, the address of its page, becomes
    `ws://host:8000/play/v1/stream`. An address with the scheme ws or wss and a path is the stream's own."""
    parts = urlsplit(url if "://" in url else f"http://{url}")
    scheme = {"http": "ws", "https": "wss"}.get(parts.scheme, parts.scheme)
    path = parts.path.rstrip("/")
    is_stream = path.endswith(STREAM_PATH) or (path and parts.scheme in ("ws", "wss"))
    return urlunsplit((scheme, parts.netloc, parts.path if is_stream else path + STREAM_PATH, "", ""))


def is_loopback(url: str) -> bool:
    """Return whether an address names this machine."""
    host = urlsplit(url).hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def proxies() -> str:
    """Return the proxies that this machine's settings name, as text for people; empty without any."""
    found = {address for scheme, address in urllib.request.getproxies().items() if scheme != "no"}
    return ", ".join(sorted(found))
