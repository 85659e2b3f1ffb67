"""Addresses: which of them a client talks to. Who answers at a name is looked up once a call, checked, and then talked to."""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import SplitResult, urljoin, urlsplit

from heirmark.errors import BadConfig, printable

IP = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, kw_only=True)
class Address:
    """An address in parts.

    Attributes:
        scheme: ``"http"`` or ``"https"``.
        host: name or number, without brackets.
        port: given, or the scheme's own.
        path: with the query, if there is one; begins with ``/``.
    """

    scheme: str
    host: str
    port: int
    path: str

    @property
    def origin(self) -> str:
        """Scheme, host and port, as a text that :attr:`path` follows on."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        usual = self.port == {"http": 80, "https": 443}[self.scheme]
        return f"{self.scheme}://{host}" + ("" if usual else f":{self.port}")

    @property
    def whole(self) -> str:
        """With its query, which may hold a secret: to be asked, and neither shown nor written down."""
        return self.origin + self.path

    def __str__(self) -> str:
        """As it is shown; see :func:`shown_address`."""
        return shown_address(self.whole)

    def at(self, path: str) -> Address:
        """Another path at the same origin."""
        return Address(scheme=self.scheme, host=self.host, port=self.port, path=path)

    def redirected(self, location: str) -> Address:
        """Where a service sends a client.

        Raises:
            BadConfig: when that is no address.
        """
        return parse_address(urljoin(self.whole, location))


def is_address(text: str) -> bool:
    """Whether a text means a service.

    Examples:
        >>> is_address("HTTPS://a.example/v2"), is_address("runs/mine")
        (True, False)
    """
    return text.lower().startswith(("http://", "https://"))


def shown_address(text: str) -> str:
    """An address, or where a redirect leads, without what may be a secret: a user's name and password, and the query.

    Examples:
        >>> shown_address("https://me:word@a.example:8000/m?api_key=secret"), shown_address("/v2/models/m")
        ('https://a.example:8000/m?...', '/v2/models/m')
    """
    seen = re.split(r"[?#]", text, maxsplit=1)[0]
    return re.sub(r"^([^/]*//)[^/]*@", r"\1", seen) + (f"{text[len(seen)]}..." if len(seen) < len(text) else "")


def shown_name(name: str) -> str:
    """What a suspect goes by, without what may be a secret if that is an address.

    Examples:
        >>> shown_name("https://a.example/m?api_key=secret"), shown_name("runs/why?")
        ('https://a.example/m?...', 'runs/why?')
    """
    return shown_address(name) if is_address(name) else name


def seal_of(name: str) -> str:
    """What tells a name from others that are shown alike: its SHA-256, 64 hex digits; empty where all of it is shown."""
    return "" if shown_name(name) == name else hashlib.sha256(name.encode()).hexdigest()


def parse_address(text: str) -> Address:
    """An address in parts.

    Raises:
        BadConfig: when it is none of HTTP, or holds a password or what only a browser needs.

    Examples:
        >>> str(parse_address("https://A.example:443/v2/models/m"))
        'https://a.example/v2/models/m'
    """
    try:
        parts: SplitResult = urlsplit(text)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    strange = not text.isascii() or not text.isprintable() or " " in text
    if parts.scheme not in ("http", "https") or not parts.hostname or strange:
        raise BadConfig(
            f"{printable(shown_address(text))[:200]} is no address of a service: write http://host:port/path, or https://..."
        )
    if parts.username is not None or parts.password is not None:
        raise BadConfig("an address with a password would be shown and written down: give it by --header in its place")
    if parts.fragment:
        raise BadConfig(f"{parts.hostname}: what follows # in an address is for browsers: leave it out")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    usual = 443 if parts.scheme == "https" else 80
    return Address(scheme=parts.scheme, host=parts.hostname, port=usual if port is None else port, path=path)


def is_public(ip: IP) -> bool:
    """Whether a number is of the public internet; one that wraps another is what it wraps.

    Examples:
        >>> [is_public(ipaddress.ip_address(ip)) for ip in ("127.0.0.1", "::ffff:10.0.0.1", "169.254.169.254", "8.8.8.8")]
        [False, False, False, True]
    """
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo or (None, None))[1] or _translated(ip)
        if inner is not None:
            return is_public(inner)
    return ip.is_global and not ip.is_multicast


def check_public(address: Address, found: Sequence[IP]) -> None:
    """Refuse a name behind which any private address is.

    Raises:
        BadConfig: names it.
    """
    for ip in found:
        if not is_public(ip):
            raise BadConfig(
                f"{address.host} is {'' if address.host == str(ip) else f'{ip}, '}an address of this machine or of a private "
                "network: if you mean it, add --allow-private"
            )


def _translated(ip: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """What a gateway of RFC 6052 makes of its own prefix."""
    inside = ip in ipaddress.ip_network("64:ff9b::/96")
    return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF) if inside else None
