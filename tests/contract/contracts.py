"""What the contract suites share: cases from tiny configurations, what every configuration promises, and a stirred world."""

from __future__ import annotations

import dataclasses
import inspect
import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from heirmark.configuration import apply_settings, canonical_json, describe_fields, from_json, to_json
from heirmark.errors import BadConfig

Configs = Mapping[str, Mapping[str, Any]]
SettingsOf = Callable[[Any, Any], Iterator[str]]


def cases(registry: Mapping[str, Any], configs: Configs) -> list[Any]:
    """Each registered strategy in each tiny configuration, as parameters of a fixture; one without any fails there."""
    return [
        pytest.param((name, variant), id=f"{name}-{variant}")
        for name in registry
        for variant in configs.get(name, {"": None})
    ]


def known(case: tuple[str, str], configs: Configs, file: str) -> tuple[str, str]:
    """The case, or a failure that says where its configuration is missing."""
    if case[0] not in configs:
        pytest.fail(f"{case[0]!r} has no tiny configuration: add one to CONFIGS in {file}")
    return case


def check_frozen_and_keyword_only(kind: Any) -> None:
    """A strategy is a frozen dataclass of keywords alone, whose defaults compare and hash by value."""
    assert dataclasses.is_dataclass(kind)
    assert all(field.kw_only for field in dataclasses.fields(kind))
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(kind(), dataclasses.fields(kind)[0].name, None)
    assert kind() == kind()
    assert hash(kind()) == hash(kind())


def check_json(config: Any, registry: Mapping[str, Any]) -> None:
    """A configuration, and the default of its kind, come back from JSON as they were."""
    kinds: dict[str, Any] = {kind.__name__: kind for kind in registry.values()}
    for one in (config, type(config)()):
        again = from_json(kinds, json.loads(json.dumps(to_json(one), allow_nan=False)))
        assert again == one
        assert type(again) is type(one)
        assert canonical_json(again) == canonical_json(one)


def check_text(config: Any, settings_of: SettingsOf) -> None:
    """Every setting can be given as text, and every field has a help."""
    default = type(config)()
    assert apply_settings(default, settings_of(config, default)) == config
    assert apply_settings(default, []) == default
    rows = list(describe_fields(type(config)))
    assert {row.name for row in rows} >= {field.name for field in dataclasses.fields(config)}
    assert [row.name for row in rows if not row.help] == []


def check_accepts(kind: Any, positional: Sequence[str], keywords: Sequence[str]) -> None:
    """An attack takes these and nothing else: there is no way to give it a key."""
    accepted = inspect.signature(kind()).parameters
    assert list(accepted) == [*positional, *keywords]
    assert all(accepted[word].kind is inspect.Parameter.KEYWORD_ONLY for word in keywords)


def stir() -> None:
    """Bring the global generators into a state of one's own, which must not matter."""
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002 - the global generator must not matter
    torch.manual_seed(5)


def weights(model: nn.Module) -> dict[str, bytes]:
    """All that a net has learned, to compare by."""
    return {name: tensor.numpy().tobytes() for name, tensor in model.state_dict().items()}


BAD_SEEDS = (None, "None", "a", 1.5, True, -1, 2**63, 2**70)
"""What is no seed; of methods that make keys None is one: see ``test_methods``."""


def check_seeds(work: Callable[[Any], object], bad: Sequence[Any] = BAD_SEEDS) -> None:
    """What is no seed is refused with one sentence, before it is taken for one."""
    for seed in bad:
        with pytest.raises(BadConfig, match=r"a seed is an integer from 0 to 2\*\*63 - 1, not"):
            work(seed)
