"""Stored inputs: what they stand for, and how they are put together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch

from heirmark.errors import BadConfig
from heirmark.tasks.space import Continuous, Images, Tokens, Waves, check_needs, space_of
from heirmark.tasks.storing import decode, encode, fault, join, numbers, row_digests, shuffle

LEVELS = torch.arange(256, dtype=torch.uint8)[:, None]


def test_what_is_stored_and_what_it_stands_for_go_into_each_other() -> None:
    assert decode(LEVELS).dtype == torch.float32
    assert torch.equal(encode(decode(LEVELS), torch.uint8), LEVELS)
    assert encode(torch.tensor([-1.0, 0.3, 2.0]), torch.float32).tolist() == [0.0, pytest.approx(0.3), 1.0]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.int64])
def test_a_net_gets_what_is_no_pixel_as_it_is(dtype: torch.dtype) -> None:
    values = torch.ones(2, 3, dtype=dtype)
    assert numbers(values) is values


def test_pixels_among_floats_are_decoded_before_they_are_joined() -> None:
    moved = decode(LEVELS[:2]) + 0.001
    assert torch.equal(join([LEVELS, moved]), torch.cat([decode(LEVELS), moved]))
    assert torch.equal(join([LEVELS, LEVELS]), torch.cat([LEVELS, LEVELS]))
    assert join([LEVELS, moved.double()]).dtype == torch.float64


def test_a_row_has_one_digest_however_it_is_stored() -> None:
    stored = torch.randint(256, (5000, 1, 2, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    known = list(row_digests(stored))
    assert list(row_digests(decode(stored))) == known
    assert list(row_digests(decode(stored).double())) == known
    assert list(row_digests(stored.transpose(2, 3).contiguous().transpose(2, 3))) == known
    finer = decode(stored)
    finer[17, 0, 0, 0] += 1e-6
    assert [one != other for one, other in zip(row_digests(finer), known, strict=True)].count(True) == 1
    assert list(row_digests(torch.tensor([[-0.0, 0.3]]))) == list(row_digests(torch.tensor([[0.0, 0.3]])))
    assert list(row_digests(stored[:0])) == []


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (torch.zeros(2, 3, dtype=torch.int64), r"are torch.int64: convert them to uint8"),
        (
            torch.tensor([[0.1], [1.5], [-2.0]]),
            r"leave \[0, 1\], 2 of them, the first number 1 with values from 1.5 to 1.5",
        ),
        (torch.tensor([[0.1], [float("nan")]]), r"1 of them, the first number 1.*NaN"),
    ],
)
def test_what_is_wrong_with_inputs_is_said_with_the_remedy(values: torch.Tensor, words: str) -> None:
    told = fault(values)
    assert told is not None
    with pytest.raises(BadConfig, match=words):
        raise BadConfig(told)


def test_waves_of_16_bits_are_numbers_between_minus_one_and_one() -> None:
    stored = torch.tensor([[[-32768, -1, 0, 1, 32767]]], dtype=torch.int16)
    assert isinstance(space_of(stored), Waves)
    assert space_of(stored).places == 5
    assert decode(stored).aminmax() == (-1.0, 32767 / 32768)
    assert torch.equal(encode(decode(stored), torch.int16), stored)
    assert torch.equal(encode(torch.full((1, 1, 2), 3.0), torch.int16), torch.full((1, 1, 2), 32767, dtype=torch.int16))
    assert list(row_digests(stored)) == list(row_digests(decode(stored)))
    assert fault(stored) is None
    assert fault(decode(stored)) is None
    assert "leave [-1, 1]" in str(fault(decode(stored) * 1.5))
    assert shuffle(stored, torch.arange(4, -1, -1))[0, 0].tolist() == [32767, 1, 0, -1, -32768]


def test_texts_are_ids_of_tokens() -> None:
    stored = torch.tensor([[5, 2, 0], [7, 0, 0]], dtype=torch.int32)
    assert isinstance(space_of(stored), Tokens)
    assert space_of(stored).shape == (3,)
    assert numbers(stored) is stored
    assert join([stored, stored]).dtype == torch.int32
    assert fault(stored) is None
    assert len(set(row_digests(stored))) == 2
    assert "hold an empty text, number 1" in str(fault(torch.tensor([[1, 0], [0, 0]], dtype=torch.int32)))
    assert "hold the id -4" in str(fault(torch.tensor([[1, -4]], dtype=torch.int32)))
    assert "one length" in str(fault(stored[None]))
    with pytest.raises(AssertionError):
        decode(stored)
    with pytest.raises(BadConfig, match=r"needs waves .* or images .*shape \(3,\)"):
        check_needs(SimpleNamespace(name="tone", needs=Waves | Images), space_of(stored))


def test_sound_inputs_have_no_fault() -> None:
    for sound in (LEVELS, decode(LEVELS), decode(LEVELS).half(), torch.empty(0, 3)):
        assert fault(sound) is None


@dataclass(frozen=True)
class Stamp:
    needs: ClassVar = Images


@dataclass(frozen=True)
class Whole:
    parts: tuple[object, ...] = ()
    named: Mapping[str, object] = field(default_factory=dict)


@pytest.mark.parametrize(
    "asked", [Stamp(), Whole(parts=(Whole(), Whole(parts=(Stamp(),)))), Whole(named={"a": Stamp()})]
)
def test_needs_are_found_in_all_that_is_asked_for(asked: object) -> None:
    check_needs(asked, space_of(torch.empty(1, 3, 8, 8)))
    with pytest.raises(BadConfig, match=r"Stamp needs images \[C, H, W\].*shape \(9,\): give such, or use another"):
        check_needs(asked, space_of(torch.empty(1, 9)))


def test_a_space_is_told_by_its_shape() -> None:
    assert space_of(torch.empty(4, 3, 8, 6)) == Images((3, 8, 6))
    assert Images((3, 8, 6)).places == 48
    assert Continuous((3, 4)).places == 12
    assert space_of(torch.empty(4, 9)) == Continuous((9,))
