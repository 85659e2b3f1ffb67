"""Stored inputs: what they stand for, and how they are put together."""

from __future__ import annotations

import pytest
import torch

from heirmark.space import decode, encode, join, numbers

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
