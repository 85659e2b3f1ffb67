"""The zoo shipped inside the package: models of the embedded images and three keys, to try verification on.

``zoo:NAME`` names a folder in it wherever a folder of a model or key is asked for. ``scripts/make_zoo.py`` made it; ``zoo.json``
says how, with which seeds, and what came out.
"""

from __future__ import annotations

import difflib
from importlib import resources
from pathlib import Path

from heirmark.errors import BadConfig

PREFIX = "zoo:"
ZOO = "zoo.json"
"""How the zoo was made."""
MARKED, FORGED = "marked", "dishonest"
"""The marked model with its key, and the key of an owner who cheats, to which no model belongs."""
DRAWN, DRAWN_COPY = "drawn", "drawn-copy"
"""A marked model whose key's answers were drawn, with its registration, and a copy of it."""
COPIES = ("copy-probabilities", "copy-label", "copy-net")
INNOCENTS = tuple(f"innocent-{number}" for number in range(1, 13))
CALIBRATORS = INNOCENTS[:6]
"""Two of each family: they calibrate the zoo's keys where nobody else is named. The others are there to be suspected."""
MEMBERS = (MARKED, *COPIES, *INNOCENTS, FORGED, DRAWN, DRAWN_COPY)


def zoo_folder() -> Path:
    """Where the zoo lies."""
    return Path(str(resources.files("heirmark.data").joinpath("embedded", "zoo")))


def in_zoo(name: Path | str) -> bool:
    """Whether a name is of the zoo's.

    Examples:
        >>> in_zoo("zoo:copy-label"), in_zoo("runs/zoo")
        (True, False)
    """
    return str(name).startswith(PREFIX)


def located(name: Path | str) -> Path:
    """The folder that a name stands for: one in the zoo, or the path that it is.

    Raises:
        BadConfig: when the zoo has no such member.

    Examples:
        >>> located("zoo:copy-label").name, located("runs/mine").name
        ('copy-label', 'mine')
    """
    if not in_zoo(name):
        return Path(name)
    member = str(name).removeprefix(PREFIX)
    if member not in MEMBERS:
        near = difflib.get_close_matches(member, MEMBERS, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise BadConfig(f"there is no {member!r} in the zoo: {hint}it holds {', '.join(MEMBERS)}")
    return zoo_folder() / member


def key_for(suspect: str) -> Path:
    """The key that a suspect is asked where none is named.

    Raises:
        BadConfig: for a suspect that is not the zoo's.

    Examples:
        >>> [str(key_for(each)) for each in ("zoo:copy-label", "zoo:drawn-copy")]
        ['zoo:marked', 'zoo:drawn']
    """
    if not in_zoo(suspect):
        raise BadConfig(f"nothing says by which key {suspect} is to be judged: name its folder with --key")
    drawn = suspect in (f"{PREFIX}{DRAWN}", f"{PREFIX}{DRAWN_COPY}")
    return Path(f"{PREFIX}{DRAWN if drawn else MARKED}")


def calibrators_for(suspect: str, key: Path) -> list[str]:
    """The unmarked models that calibrate a key where nobody names any: six of the zoo for a key of the zoo's, never the suspect.

    None for the key whose answers were drawn, which needs none.

    Examples:
        >>> len(calibrators_for("zoo:innocent-1", Path("zoo:marked"))), calibrators_for("zoo:innocent-1", Path("runs/mine"))
        (5, [])
    """
    if not in_zoo(key) or str(key) == f"{PREFIX}{DRAWN}":
        return []
    return [f"{PREFIX}{name}" for name in CALIBRATORS if f"{PREFIX}{name}" != suspect]
