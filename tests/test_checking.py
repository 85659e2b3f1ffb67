"""Fields that are checked by their annotations."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heirmark.attacks import EXTRACTIONS, INSPECTIONS, REMOVALS, SCREENINGS
from heirmark.configuration import (
    Constraint,
    above,
    apply_settings,
    at_least,
    at_most,
    below,
    checked,
    describe_fields,
    distinct,
    from_json,
    not_empty,
    to_json,
    within,
)
from heirmark.configuration.hints import fields_of, hints_of, is_config, members_of
from heirmark.errors import BadConfig
from heirmark.methods import METHODS

Way = Literal["halves", "blend"]
even = Constraint("(even)", lambda number: number % 2 == 0)


@dataclass(frozen=True, kw_only=True)
@checked
class Part:
    size: Annotated[int, at_least(1)] = 1


@dataclass(frozen=True, kw_only=True)
@checked
class Recipe:
    """A recipe.

    Attributes:
        rate: of learning.
        period: in rounds.
    """

    rate: Annotated[float, above(0)] = 0.1
    momentum: Annotated[float, at_least(0), below(1)] = 0.9
    share: Annotated[float, within(0, 1)] = 0.5
    decay: float = 0.0
    epochs: Annotated[int, at_least(0), at_most(9)] = 3
    nesterov: bool = False
    schedule: Literal["cosine", "step"] = "cosine"
    period: Annotated[int, at_least(1)] | None = None
    ways: Annotated[tuple[Way, ...], not_empty] = ("halves",)
    sources: Annotated[tuple[Annotated[int, at_least(0)], int], distinct] | None = None
    layers: Literal["all"] | tuple[int | str, ...] = "all"
    sizes: tuple[Annotated[int, even], ...] = ()
    sets: Mapping[str, Annotated[int, at_least(0)]] = field(default_factory=dict, hash=False)
    part: Part | None = None
    score: Callable[[], float] | None = None

    def __post_init__(self) -> None:
        if self.nesterov and self.momentum == 0:
            raise BadConfig("nesterov needs a momentum")


plain = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 12),
    st.floats(-2, 3),
    st.sampled_from([math.nan, math.inf, -math.inf]),
    st.sampled_from(["cosine", "step", "all", "halves", "blend", "x", ""]),
)
values = st.one_of(plain, st.lists(plain, max_size=3).map(tuple), st.builds(Part))
values |= st.dictionaries(st.sampled_from("ab"), plain, max_size=2)


def whole(value: Any) -> bool:
    return type(value) is int


def number(value: Any) -> bool:
    return whole(value) or (type(value) is float and math.isfinite(value))


def items(value: Any, fits: Callable[[Any], bool]) -> bool:
    return type(value) is tuple and all(fits(item) for item in value)


ALLOWED: dict[str, Callable[[Any], bool]] = {
    "rate": lambda v: number(v) and v > 0,
    "momentum": lambda v: number(v) and 0 <= v < 1,
    "share": lambda v: number(v) and 0 <= v <= 1,
    "decay": number,
    "epochs": lambda v: whole(v) and 0 <= v <= 9,
    "nesterov": lambda v: type(v) is bool,
    "schedule": lambda v: type(v) is str and v in ("cosine", "step"),
    "period": lambda v: v is None or (whole(v) and v >= 1),
    "ways": lambda v: items(v, lambda w: type(w) is str and w in ("halves", "blend")) and len(v) > 0,
    "sources": lambda v: v is None or (items(v, whole) and len(v) == 2 and v[0] >= 0 and v[0] != v[1]),
    "layers": lambda v: (type(v) is str and v == "all") or items(v, lambda w: whole(w) or type(w) is str),
    "sizes": lambda v: items(v, lambda w: whole(w) and w % 2 == 0),
    "sets": lambda v: isinstance(v, Part) or (isinstance(v, dict) and all(whole(w) and w >= 0 for w in v.values())),
    "part": lambda v: v is None or isinstance(v, Part),
    "score": lambda v: (
        v is None or isinstance(v, Part)
    ),  # no plain value: that it can be called is for the type checker
}


@pytest.mark.parametrize("name", sorted(ALLOWED))
@given(value=values)
def test_a_field_takes_what_its_annotation_says_and_nothing_else(name: str, value: object) -> None:
    change: dict[str, Any] = {name: value}
    if ALLOWED[name](value):
        assert getattr(Recipe(**change), name) is value
        return
    with pytest.raises(BadConfig) as refused:
        Recipe(**change)
    said = str(refused.value)
    assert said.startswith(f"Recipe.{name}")
    assert "expected" in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"rate": 0}, "Recipe.rate: expected float > 0, not 0"),
        ({"rate": math.nan}, "Recipe.rate: expected float > 0, not nan"),
        ({"decay": math.inf}, "Recipe.decay: expected float, not inf"),
        ({"decay": 10**400}, f"Recipe.decay: expected float, not 1{'0' * 199}"),
        ({"momentum": 1.0}, "Recipe.momentum: expected float >= 0 and < 1, not 1.0"),
        ({"share": -0.5}, "Recipe.share: expected float from 0 to 1, not -0.5"),
        ({"epochs": True}, "Recipe.epochs: expected int >= 0 and <= 9, not True"),
        ({"schedule": "steps"}, "Recipe.schedule: expected cosine|step, not 'steps'"),
        ({"period": 0}, "Recipe.period: expected none|int >= 1, not 0"),
        ({"ways": ()}, "Recipe.ways: expected halves|blend,... (at least one), not ()"),
        ({"ways": ("halves", "mix")}, "Recipe.ways[1]: expected halves|blend, not 'mix'"),
        ({"sources": (3, 3)}, "Recipe.sources: expected none|int >= 0,int (all different), not (3, 3)"),
        ({"sources": (-1, 3)}, "Recipe.sources[0]: expected int >= 0, not -1"),
        ({"layers": "last"}, "Recipe.layers: expected all|int|str,..., not 'last'"),
        ({"sets": {"a": -1}}, "Recipe.sets.a: expected int >= 0, not -1"),
        ({"part": "part"}, "Recipe.part: expected none|part, not 'part'"),
        ({"nesterov": True, "momentum": 0.0}, "nesterov needs a momentum"),
        ({"nesterov": True, "momentum": -1.0}, "Recipe.momentum: expected float >= 0 and < 1, not -1.0"),
    ],
)
def test_the_error_names_the_field_its_value_and_what_is_allowed(change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(BadConfig) as refused:
        replace(Recipe(), **change)
    assert str(refused.value) == complaint


def test_json_and_text_are_checked_as_well_and_help_says_the_ranges() -> None:
    recipe = Recipe(period=2, sources=(3, 4), part=Part(size=2), sizes=(2, 4))
    assert from_json({"Recipe": Recipe}, to_json(recipe)) == recipe
    assert apply_settings(Recipe(), ["period=2", "sources=3,4", "part=part", "part.size=2", "sizes=2,4"]) == recipe
    with pytest.raises(BadConfig, match=r"^Recipe\.period: expected none\|int >= 1, not 0$"):
        apply_settings(Recipe(), ["period=0"])
    with pytest.raises(BadConfig, match=r"Part\.size: expected int >= 1, not 0"):
        from_json({"Recipe": Recipe}, {"type": "Recipe", "part": {"type": "Part", "size": 0}})
    with pytest.raises(BadConfig, match=r"rate: expected float > 0, such as rate=0.1, not 'fast'"):
        apply_settings(Recipe(), ["rate=fast"])
    types = {row.name: row.type for row in describe_fields(Recipe)}
    assert types["rate"] == "float > 0"
    assert types["period"] == "none|int >= 1"
    assert types["part.size"] == "int >= 1"


def test_a_subclass_is_checked_by_its_own_annotations() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Longer(Recipe):
        epochs: Annotated[int, at_least(10)] = 10

    assert Longer(epochs=20).epochs == 20
    with pytest.raises(BadConfig, match=r"Longer\.epochs: expected int >= 10, not 3"):
        Longer(epochs=3)
    with pytest.raises(BadConfig, match="nesterov needs a momentum"):
        Longer(nesterov=True, momentum=0)


def test_a_check_that_would_never_run_is_refused() -> None:
    with pytest.raises(TypeError, match="Late would not be checked: write @checked below @dataclass"):

        @checked
        @dataclass
        class Late:
            size: int = 1


STRATEGIES = {**METHODS, **EXTRACTIONS, **REMOVALS, **INSPECTIONS, **SCREENINGS}


def parts(config: Any) -> Iterator[Any]:
    """A configuration, those that it holds, and those that it could hold."""
    yield config
    for row in fields_of(type(config)):
        held = getattr(config, row.name)
        kinds = [kind for kind in members_of(hints_of(type(config))[row.name]) if is_config(kind)]
        for part in [held] if is_config(type(held)) else []:
            yield from parts(part)
        for kind in kinds:
            if not isinstance(held, kind):
                yield from parts(kind())


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_no_field_of_a_method_or_an_attack_takes_what_is_no_number(name: str) -> None:
    taken = set()
    for config in parts(STRATEGIES[name]()):
        for row in fields_of(type(config)):
            try:
                replace(config, **{row.name: math.nan})
            except BadConfig as refused:
                if f"{type(config).__name__}.{row.name}: expected" in str(refused):
                    continue
            taken.add(f"{type(config).__name__}.{row.name}")
    assert not taken


def test_annotations_that_cannot_be_read_are_told() -> None:
    from collections.abc import Sized as OnlyHere

    @dataclass(frozen=True)
    @checked
    class Part:
        items: OnlyHere = ()

    with pytest.raises(BadConfig, match=r"the fields of Part cannot be read .*OnlyHere.*: import"):
        Part()
