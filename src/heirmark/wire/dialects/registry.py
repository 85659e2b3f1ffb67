"""The dialects by name, and which of them a service speaks."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from heirmark.errors import BadConfig
from heirmark.querying.oracle import ModelFault
from heirmark.wire.addresses import Address
from heirmark.wire.calling import Call, CallFailed
from heirmark.wire.dialects.base import Dialect, Findable, Wish
from heirmark.wire.dialects.hugging_face import HuggingFace
from heirmark.wire.dialects.mlflow import MLflow
from heirmark.wire.dialects.template import Template
from heirmark.wire.dialects.tf_serving import TFServing
from heirmark.wire.dialects.v2 import OpenInference

_KINDS: tuple[type[Findable], ...] = (HuggingFace, TFServing, OpenInference, MLflow)
DIALECTS: dict[str, type[Findable]] = {each.name: each for each in _KINDS}
"""In the order in which they are tried: first those that an address alone tells."""
AUTO = "auto"


def find_dialect(name: str, address: Address, ask: Callable[[Call], Any], wish: Wish) -> Dialect:
    """The dialect that a service speaks.

    Args:
        name: of a dialect, ``"auto"``, or a file of a template, which ends in ``.json``.
        address: as the user names it.
        ask: makes a call there.
        wish: what the client knows.

    Raises:
        BadConfig: for an unknown name, or a service that speaks none.
        ModelFault: when the service cannot be reached, or fails.
    """
    if name.endswith(".json"):
        return Template.read(Path(name), address, wish)
    if name != AUTO and name not in DIALECTS:
        near = difflib.get_close_matches(name, DIALECTS, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise BadConfig(
            f"unknown protocol {name!r}: {hint}choose one of auto, {', '.join(DIALECTS)}, or name a template's .json"
        )
    try:
        for each in DIALECTS.values() if name == AUTO else (DIALECTS[name],):
            found = each.find(address, ask, wish, named=name != AUTO)
            if found is not None:
                return found
    except CallFailed as error:
        raise ModelFault(str(error)) from error
    raise BadConfig(
        f"{address} speaks no protocol that is recognised: name it (--protocol {', '.join(DIALECTS)}), or describe it by a "
        "template (--protocol FILE.json)"
    )
