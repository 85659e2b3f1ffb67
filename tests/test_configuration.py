"""Configurations: JSON and back, settings as text, help."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from heirmark.configuration import apply_settings, canonical_json, describe_fields, from_json, qualified_name, to_json
from heirmark.errors import BadConfig


@dataclass(frozen=True, kw_only=True)
class Tiles:
    """Tiles.

    Attributes:
        size: side in pixels, e.g. 4. At most half the image.
    """

    size: int = 4


@dataclass(frozen=True, kw_only=True)
class Mix:
    """Halves.

    Attributes:
        sources: two classes.
        layout: which halves.
    """

    sources: tuple[int, ...] | None = None
    layout: Literal["left-right", "top-bottom"] = "left-right"

    def __post_init__(self) -> None:
        if self.sources is not None and len(self.sources) != 2:
            raise BadConfig(f"Mix needs 2 sources, not {self.sources}")


@dataclass(frozen=True, kw_only=True)
class Needy:
    must: int


@dataclass(frozen=True, kw_only=True)
class Rehearsal:
    """Rehearsal.

    Attributes:
        alpha: weight of the rehearsed loss.
        low: lower bound.
        high: upper bound.
    """

    alpha: float = 0.5
    low: int = 0
    high: int = 1

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise BadConfig(f"low must be below high, not {self.low} and {self.high}")


class Anything(Protocol):
    def __call__(self) -> int: ...


def make_model(spec: object) -> object:
    return spec


def never(description: str) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Method:
    """A method.

    Attributes:
        epochs: passes over
            the data. Twice as many for MNIST.
        rate: learning rate.
        model: architecture.
        flip: whether to flip.
        trigger: what marks.
        clip: largest norm; None does not clip.
    """

    epochs: int = 60
    rate: float = 0.1
    model: str | Callable[[object], object] = "resnet18"
    flip: bool = False
    trigger: Tiles | Mix | Needy | None = field(default_factory=Tiles)
    rehearsal: Rehearsal = Rehearsal()
    clip: float | None = None
    shape: tuple[int, int, float] = (1, 2, 0.5)
    names: tuple[str, ...] = ()
    options: tuple[tuple[str, bool | int | float], ...] = ()
    stages: tuple[Tiles | Mix, ...] = ()
    warmup: int | Literal["auto"] = "auto"
    extra: Mapping[str, int] = field(default_factory=dict)
    attack: Anything | None = None
    progress: Callable[[str], None] = field(default=never, compare=False)


floats = st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
mixes = st.builds(Mix, sources=st.none() | st.tuples(st.integers(), st.integers()), layout=st.just("top-bottom"))
triggers = st.builds(Tiles, size=st.integers()) | mixes
methods = st.builds(
    Method,
    epochs=st.integers(),
    rate=floats,
    model=texts | st.just(make_model),
    flip=st.booleans(),
    trigger=st.none() | triggers | st.builds(Needy, must=st.integers()),
    rehearsal=st.builds(Rehearsal, alpha=floats, low=st.integers(max_value=0), high=st.integers(min_value=1)),
    clip=st.none() | floats,
    shape=st.tuples(st.integers(), st.integers(), floats),
    names=st.lists(texts, max_size=3).map(tuple),
    options=st.lists(st.tuples(texts, st.booleans() | st.integers() | floats), max_size=3).map(tuple),
    stages=st.lists(triggers, max_size=3).map(tuple),
    warmup=st.integers() | st.just("auto"),
    extra=st.dictionaries(texts, st.integers(), max_size=2),
    attack=st.none() | st.builds(Tiles),
    progress=st.just(never),
)
KNOWN = {"Method": Method, "Tiles": Tiles, qualified_name(make_model): make_model}


@settings(max_examples=50)
@given(methods)
def test_json_and_back_is_the_same_configuration(method: Method) -> None:
    text = json.dumps(to_json(method), allow_nan=False)
    back = from_json(KNOWN, json.loads(text))
    assert back == method
    assert type(back.rate) is float
    assert canonical_json(back) == canonical_json(method)


@settings(max_examples=50)
@given(methods, methods)
def test_different_configurations_have_different_bytes(one: Method, two: Method) -> None:
    assert one == two or canonical_json(one) != canonical_json(two)


def test_equal_numbers_have_equal_bytes() -> None:
    assert canonical_json(Rehearsal(alpha=1)) == canonical_json(Rehearsal(alpha=1.0))
    assert canonical_json([-0.0, 1e300]) == canonical_json((0, int(1e300)))
    assert canonical_json({"b": 1, "a": 2}) == canonical_json({"a": 2, "b": 1}) == b'{"a":2,"b":1}'
    assert canonical_json(True) != canonical_json(1)


@dataclass(frozen=True)
class Clash:
    type: str = "x"


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        (math.nan, "finite"),
        ({"a": {"b": math.inf}}, r"configuration\.a\.b is inf"),
        (Path("x"), "Path.*digest"),
        ({1: 2}, "strings"),
        ({"a": {1, 2}}, "set"),
        (b"x", "bytes"),
        (lambda: 0, "no name"),
        (Clash(), "field named 'type'"),
    ],
)
def test_to_json_refuses_what_json_cannot_hold(value: object, complaint: str) -> None:
    with pytest.raises(BadConfig, match=complaint):
        to_json(value)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"epochs": 1.5}, r"epochs: expected int, not 1\.5"),
        ({"epochs": True}, "epochs"),
        ({"epoch": 1}, "did you mean 'epochs'"),
        ({"trigger": {"type": "Mixx"}}, "trigger"),
        ({"trigger": {"type": "Needy"}}, "Needy needs must"),
        ({"trigger": {"type": "Mix", "sources": [1]}}, "2 sources"),
        ({"stages": [{"type": "Mix", "layuot": 1}]}, r"stages\[0\].*did you mean 'layout'"),
        ({"shape": [1, 2]}, "shape: expected int,int,float"),
        ({"warmup": "never"}, "auto"),
        ({"model": {"function": "os:system"}}, "not imported by name"),
        ({"model": {"function": ["x"]}}, "not imported by name"),
        ({"attack": {"type": "Unknown"}}, "unknown type 'Unknown'"),
        ({"rate": "fast"}, "rate"),
    ],
)
def test_from_json_refuses_what_does_not_fit(change: dict[str, object], complaint: str) -> None:
    with pytest.raises(BadConfig, match=complaint):
        from_json(KNOWN, to_json(Method()) | change)


def test_from_json_defaults_and_plain_values() -> None:
    assert from_json(KNOWN, {"type": "Method", "epochs": 3}) == Method(epochs=3)
    assert from_json({}, {"a": [1, {"b": None}]}) == {"a": [1, {"b": None}]}


SETTINGS = [
    ("epochs=30", {"epochs": 30}),
    ("epochs = 50_000 ", {"epochs": 50_000}),
    ("rate=1", {"rate": 1.0}),
    ("rate=5e-4", {"rate": 5e-4}),
    ("model=naivenet:width=8", {"model": "naivenet:width=8"}),
    ("flip=True", {"flip": True}),
    ("trigger=none", {"trigger": None}),
    ("trigger=mix", {"trigger": Mix()}),
    ("extra=mark:3,target:4", {"extra": {"mark": 3, "target": 4}}),
    ("extra=", {"extra": {}}),
    ("trigger.size=2", {"trigger": Tiles(size=2)}),
    ("rehearsal.alpha=0.1", {"rehearsal": Rehearsal(alpha=0.1)}),
    ("clip=none", {"clip": None}),
    ("clip=3", {"clip": 3.0}),
    ("shape=3,4,5", {"shape": (3, 4, 5.0)}),
    ("names=a, b", {"names": ("a", "b")}),
    ("names=", {"names": ()}),
    ("stages=tiles,mix", {"stages": (Tiles(), Mix())}),
    ("warmup=auto", {"warmup": "auto"}),
    ("warmup=3", {"warmup": 3}),
]


@pytest.mark.parametrize(("setting", "changes"), SETTINGS)
def test_settings_are_read_by_type(setting: str, changes: dict[str, object]) -> None:
    changed = apply_settings(Method(), [setting])
    assert changed == Method(**changes)
    for name in changes:
        assert type(getattr(changed, name)) is type(changes[name])


@settings(max_examples=50)
@given(methods)
def test_help_and_settings_speak_the_same_language(method: Method) -> None:
    method = Method(epochs=method.epochs, rate=method.rate, clip=method.clip, shape=method.shape, flip=method.flip)
    texts = {"clip": "none" if method.clip is None else str(method.clip), "shape": ",".join(map(str, method.shape))}
    texts |= {name: str(getattr(method, name)) for name in ("epochs", "rate", "flip")}
    assert apply_settings(Method(), [f"{name}={text}" for name, text in texts.items()]) == method


def test_settings_take_effect_together() -> None:
    both = ["rehearsal.low=7", "rehearsal.high=9", "trigger.sources=3,5", "trigger=mix", "epochs=1", "epochs=2"]
    changed = apply_settings(Method(), both)
    assert changed.rehearsal == Rehearsal(low=7, high=9)
    assert changed.trigger == Mix(sources=(3, 5))
    assert changed.epochs == 2
    assert apply_settings(Method(), ["trigger=needy", "trigger.must=1"]).trigger == Needy(must=1)
    assert apply_settings(Method(trigger=Mix(sources=(1, 2))), ["trigger=mix"]).trigger == Mix()
    assert apply_settings(Method(), []) == Method()


@pytest.mark.parametrize(
    ("given_settings", "complaint"),
    [
        (["epochs"], "write name=value"),
        (["=3"], "write name=value"),
        (["epoch=3"], "Method has no field 'epoch': did you mean 'epochs'[?] choose from epochs, rate"),
        (["zzz=3"], "no field 'zzz': choose from"),
        (["progress=x"], "no field 'progress'"),
        (["rehearsal.alhpa=3"], "rehearsal: Rehearsal has no field 'alhpa': did you mean 'alpha'"),
        (["epochs=many"], "epochs: expected int, such as epochs=60, not 'many'"),
        (["epochs=3.5"], "expected int"),
        (["rate=nan"], "rate: expected float, such as rate=0.1, not 'nan'"),
        (["flip=yes"], "flip: expected true[|]false, such as flip=false"),
        (["trigger=mx"], "trigger: expected none[|]tiles[|]mix[|]needy, such as trigger=tiles, not 'mx'"),
        (["trigger=needy"], "trigger: Needy needs must: give it"),
        (["trigger=mix", "trigger.layout=up"], "expected left-right[|]top-bottom, such as trigger.layout=left-right"),
        (["trigger=mix", "trigger.sources=a"], "expected none[|]int,..., such as trigger.sources=3,3, not 'a'"),
        (["extra=mark"], "extra: expected name:int,..., such as extra=name:3, not 'mark'"),
        (["extra=mark:x"], "extra: expected name:int,..."),
        (["trigger=none", "trigger.size=3"], "set trigger first"),
        (["epochs.size=3"], "epochs holds nothing with a field 'size'"),
        (["shape=1,2"], "such as shape=1,2,0.5"),
        (["rehearsal.low=9"], "low must be below high"),
        (["options=a,1"], "options: expected"),
    ],
)
def test_bad_settings_are_refused_with_a_remedy(given_settings: list[str], complaint: str) -> None:
    with pytest.raises(BadConfig, match=complaint):
        apply_settings(Method(), given_settings)


def test_help_rows() -> None:
    rows = {(row.name, row.owner): row for row in describe_fields(Method)}
    epochs = rows["epochs", "Method"]
    assert (epochs.type, epochs.default, epochs.help) == ("int", "60", "passes over the data.")
    assert rows["trigger.size", "Tiles"].help == "side in pixels, e.g. 4."
    assert rows["trigger.layout", "Mix"].type == "left-right|top-bottom"
    assert rows["trigger", "Method"].default == "tiles"
    assert rows["trigger.must", "Needy"].default is None
    assert rows["rehearsal.alpha", "Rehearsal"].help == "weight of the rehearsed loss."
    assert rows["clip", "Method"].type == "none|float"
    assert rows["model", "Method"].type == "str"
    assert rows["shape", "Method"].help == ""
    assert ("progress", "Method") not in rows
