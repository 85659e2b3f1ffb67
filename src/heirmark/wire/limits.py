"""What a client of a service allows itself: time, queries, money, and whom it talks to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from heirmark.configuration import above, at_least, below, checked, within
from heirmark.errors import BadConfig
from heirmark.files import MIB


@dataclass(frozen=True, kw_only=True)
@checked
class Limits:
    """Limits of a client.

    Attributes:
        batch: inputs a call, at most; a service that takes one at a time gets one.
        call_seconds: a call is given up after so long, whatever the service does meanwhile.
        total_seconds: nothing is asked after so many seconds since the first question.
        retries: how often a call that failed in passing is made again.
        wait: seconds before the first repetition; twice as long before each further one, or as the service says, but no longer
            than a minute.
        rate: inputs a second, at most, repeated ones among them; None for as fast as it goes.
        queries: inputs that are put to the service in all, at most. One that is put again because a call failed counts once.
        price: of one input, in any currency.
        max_cost: nothing is asked that could cost more in all. A repeated call is counted as paid twice unless the service was
            not reached, or refused it for being asked too often: what a service bills is its own affair.
        max_bytes: of one answer.
        allow_private: talk to addresses of this machine and of private networks, loopback among them.
        allow_redirects: follow a service that names another address, five times at most.

    Raises:
        BadConfig: if a number is out of range, or cost is bounded and nothing costs.
    """

    batch: Annotated[int, within(1, 4096)] = 32
    call_seconds: Annotated[float, above(0), below(86_400)] = 30.0
    total_seconds: Annotated[float, above(0)] = 3600.0
    retries: Annotated[int, within(0, 100)] = 4
    wait: Annotated[float, at_least(0), below(3600)] = 1.0
    rate: Annotated[float | None, above(0)] = None
    queries: Annotated[int | None, at_least(0)] = None
    price: Annotated[float, at_least(0)] = 0.0
    max_cost: Annotated[float | None, at_least(0)] = None
    max_bytes: Annotated[int, at_least(1)] = 16 * MIB
    allow_private: bool = False
    allow_redirects: bool = False

    def __post_init__(self) -> None:
        if self.max_cost is not None and not self.price:
            raise BadConfig(
                "--max-cost bounds nothing while an input costs nothing: say its --price, or 1 to count inputs"
            )
