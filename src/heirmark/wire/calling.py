"""One call over HTTP, within its limits: so many seconds, so many bytes, to an address that was checked."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from heirmark.errors import BadArtifact, BadConfig, HeirmarkError, printable, told
from heirmark.files import parse_json
from heirmark.wire.addresses import IP, Address, check_public, shown_address
from heirmark.wire.blotting import blotted, secrets_in
from heirmark.wire.limits import Limits

if TYPE_CHECKING:
    import httpx

_LONGEST_WAIT = 60.0
_HOPS = 5
_MOVED = {307, 308}
"""Answers that keep the question; after any other redirect a question would be put without its inputs."""
_PASSING = {408, 425, 429, 500, 502, 503, 504}
_REFUSED = {408, 425, 429, 503}
"""Answers of a service that has not looked at the question."""


class CallFailed(HeirmarkError):
    """A call that got no answer.

    Attributes:
        passing: whether the same call may go well later.
        reached: whether the service may have worked on it, and count it.
        refused: whether the service answered that it has nothing to say to it.
        wait: seconds that the service asks to be left alone; None where it says nothing.
    """

    def __init__(
        self, words: str, *, passing: bool, reached: bool = True, refused: bool = False, wait: float | None = None
    ) -> None:
        super().__init__(words)
        self.passing, self.reached, self.refused, self.wait = passing, reached, refused, wait


@dataclass(frozen=True, kw_only=True)
class Call:
    """What is sent.

    Attributes:
        path: at the service's own origin.
        body: JSON, which is posted; None asks for what is at the path.
    """

    path: str
    body: Any = None


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Makes calls at one origin.

    Every call has a connection of its own: nothing is left open between two, and the time limit holds for the whole, from looking
    up the name to the last byte. No proxy, ``.netrc`` or cookie is used.

    What is sent in confidence, headers and the address's query, is blotted out of every answer.

    Attributes:
        address: of the service.
        limits: of time and size, and whom it may talk to.
        headers: sent along, to this origin only.
        transport: in place of the network, for tests.
        look_up: what stands behind a name, ditto.
    """

    address: Address
    limits: Limits = field(default=Limits())
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    transport: httpx.AsyncBaseTransport | None = None
    look_up: Callable[[str, int], Awaitable[Sequence[IP]]] | None = None

    def __call__(self, call: Call) -> Any:
        """The answer to a call, JSON that was read strictly; to a question without a body also None where there is no JSON.

        Raises:
            CallFailed: when there is no answer, or none that can be read.
            BadConfig: when httpx is not installed, or the address may not be talked to.
        """
        return _run(lambda: self._within(call))

    @cached_property
    def _secrets(self) -> tuple[str, ...]:
        return secrets_in(self.headers, self.address)

    def _told(self, error: Exception) -> str:
        words = told(error)
        # Not blotted out but left out: it may be cut off within a secret.
        return type(error).__name__ if any(secret[:6] in words for secret in self._secrets) else words

    async def _within(self, call: Call) -> Any:
        import httpx

        seconds = self.limits.call_seconds
        try:
            async with asyncio.timeout(seconds):
                return await self._follow(call)
        except (TimeoutError, httpx.TimeoutException):
            raise CallFailed(
                f"{self.address.host} did not answer within {seconds:g} seconds: allow more (--call-seconds), or ask less at "
                "once (--batch)",
                passing=True,
            ) from None
        except httpx.ConnectError as error:
            raise CallFailed(
                f"{self.address.origin} cannot be reached ({self._told(error)}): is it running?",
                passing=True,
                reached=False,
            ) from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise CallFailed(f"{self.address.host} broke off ({self._told(error)})", passing=True) from None
        except OSError as error:  # of looking up a name
            raise CallFailed(
                f"{self.address.host} is not found ({told(error)}): check the name", passing=True, reached=False
            ) from None

    async def _follow(self, call: Call) -> Any:
        goal = self.address.at(call.path)
        for _ in range(_HOPS):
            status, location, wait, body = await self._send(goal, call)
            if not 300 <= status < 400:
                return _read(status, wait, body, goal, self._secrets, asked=call.body is not None)
            goal = self._moved(goal, status, location, asked=call.body is not None)
        raise CallFailed(f"{self.address.host} redirects without end: name the address that it leads to", passing=False)

    def _moved(self, goal: Address, status: int, location: str, *, asked: bool) -> Address:
        where = printable(blotted(shown_address(location), self._secrets))[:200] or "nowhere"
        if not self.limits.allow_redirects:
            raise CallFailed(
                f"{goal.host} redirects to {where}: name that address if you trust it, or add --allow-redirects",
                passing=False,
            )
        if asked and status not in _MOVED:
            raise CallFailed(
                f"{goal.host} redirects to {where} by a {status}, which drops the question: name that address",
                passing=False,
            )
        try:
            moved = goal.redirected(location)
        except (BadConfig, ValueError):
            raise CallFailed(f"{goal.host} redirects to {where}, which is no address", passing=False) from None
        if goal.scheme == "https" and moved.scheme == "http":
            raise CallFailed(f"{goal.host} redirects to {where}, where anybody could listen", passing=False)
        return moved

    async def _send(self, goal: Address, call: Call) -> tuple[int, str, str, bytes]:
        """Status, where it redirects to, how long to wait, and the body."""
        import httpx

        host = goal.host
        try:
            host = str(await self._resolved(goal))
        except BadConfig as error:
            if goal.origin == self.address.origin:
                raise
            raise CallFailed(f"{self.address.host} redirects: {error}", passing=False) from None
        headers = {"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "heirmark"}
        headers["Host"] = goal.origin.partition("://")[2]
        if goal.origin == self.address.origin:
            headers |= self.headers
        if call.body is not None:
            headers["Content-Type"] = "application/json"
        url = Address(scheme=goal.scheme, host=host, port=goal.port, path=goal.path).whole
        async with httpx.AsyncClient(
            transport=self.transport, verify=_contexts.default, trust_env=False, timeout=self.limits.call_seconds
        ) as client:
            request = client.build_request(
                "GET" if call.body is None else "POST",
                url,
                headers=headers,
                content=None if call.body is None else json.dumps(call.body, allow_nan=False).encode(),
                extensions={"sni_hostname": goal.host},
            )
            answer = await client.send(request, stream=True, follow_redirects=False)
            try:
                body = await self._body(answer)
            finally:
                with contextlib.suppress(Exception):  # it is gone anyhow
                    await answer.aclose()
        said = answer.headers
        return answer.status_code, said.get("location", ""), said.get("retry-after", ""), body

    async def _body(self, answer: httpx.Response) -> bytes:
        if answer.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
            raise CallFailed(f"{self.address.host} packs its answer, which it was asked not to do", passing=False)
        body = bytearray()
        async for part in answer.aiter_bytes():
            body += part
            if len(body) > self.limits.max_bytes:
                raise CallFailed(
                    f"{self.address.host} answers more than {self.limits.max_bytes:,} bytes: ask less at once (--batch)",
                    passing=False,
                )
        return bytes(body)

    async def _resolved(self, goal: Address) -> IP:
        """The number that is talked to, so that no second look-up can lead elsewhere."""
        try:
            found: Sequence[IP] = [ipaddress.ip_address(goal.host)]
        except ValueError:
            found = await (self.look_up or _look_up)(goal.host, goal.port)
        if not self.limits.allow_private:
            check_public(goal, found)
        return found[0]


class _Contexts:
    """What certificates are checked by; reading them takes a while, so it is done once."""

    @cached_property
    def default(self) -> ssl.SSLContext:
        return ssl.create_default_context()


_contexts = _Contexts()


def _run(make: Callable[[], Awaitable[Any]]) -> Any:
    """Wait for something, also where a loop of somebody else's is running, as in a notebook."""
    try:
        import httpx  # noqa: F401
    except ImportError:
        raise BadConfig('a service is asked by httpx: pip install "heirmark[http]"') from None

    async def awaited() -> Any:
        return await make()

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(awaited())
    ended: list[Any] = []

    def work() -> None:
        try:
            ended.append((asyncio.run(awaited()), None))
        except BaseException as error:
            ended.append((None, error))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    answer, error = ended[0]
    if error is not None:
        raise error
    return answer


async def _look_up(host: str, port: int) -> Sequence[IP]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    numbers = [ipaddress.ip_address(str(each[4][0]).partition("%")[0]) for each in found]
    return sorted(set(numbers), key=lambda ip: (ip.version, ip.packed))


def _read(status: int, wait: str, body: bytes, goal: Address, secrets: Sequence[str], *, asked: bool) -> Any:
    if status >= 400 or status < 200:
        seconds = min(float(wait), _LONGEST_WAIT) if wait.strip().isdecimal() else None
        words = printable(blotted(body[:10_000].decode(errors="replace"), secrets)[:300]).strip()
        raise CallFailed(
            f"{blotted(str(goal), secrets)} answers {status}" + (f" ({words})" if words else ""),
            passing=status in _PASSING,
            reached=status not in _REFUSED,
            refused=status not in _REFUSED,
            wait=seconds,
        )
    try:
        answer = parse_json(body, source=f"the answer of {goal.host}")
    except BadArtifact:
        if not asked:
            return None
        raise CallFailed(f"{goal} answers what is not strict JSON: is it the right path?", passing=False) from None
    # A long answer of numbers alone is not gone through.
    return blotted(answer, secrets) if b"\\" in body or any(each.encode() in body for each in secrets) else answer
