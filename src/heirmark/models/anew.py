"""Nets like one that is there, with weights drawn anew: what trains a thief or an unmarked model where nobody gives a factory."""

from __future__ import annotations

from contextlib import suppress

import torch
from torch import nn

from heirmark.models import ModelSpec
from heirmark.querying.layout import copied, unwrapped


class Anew:
    """A factory of nets of a given one's structure, for its own input shape and classes.

    Layers draw their weights by ``reset_parameters``, as torch's do when they are made. A weight that no layer draws anew, such
    as a bare parameter, has its numbers shuffled: what was learned is gone, and their scale stays.

    Args:
        model: stays as it is; a copy of it is kept.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = copied(unwrapped(model))
        # What a model that it builds is said to be made by.
        self.__module__, self.__qualname__ = type(self.model).__module__, type(self.model).__qualname__

    def __call__(self, spec: ModelSpec) -> nn.Module:
        """A net, drawn from torch's global generator."""
        model = copied(self.model)
        with torch.no_grad():
            before = [weight.clone() for weight in model.parameters()]
            for module in model.modules():
                _reset(module)
            for weight, old in zip(model.parameters(), before, strict=True):
                if torch.equal(weight, old):
                    weight.copy_(old.flatten()[torch.randperm(old.numel())].view_as(old))
        return model


def _reset(module: nn.Module) -> None:
    """Let a layer draw its weights, where it can."""
    for name in ("reset_parameters", "_reset_parameters"):
        draw = getattr(module, name, None)
        if callable(draw):
            with suppress(Exception):  # a user's own may want arguments
                draw()
            return
