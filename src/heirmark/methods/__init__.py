"""Watermarking methods by name. Each is one file citing its paper."""

from heirmark.methods.base import Marked, Method
from heirmark.methods.t2s import T2S
from heirmark.methods.unmarked import Unmarked
from heirmark.methods.vanilla import Vanilla

__all__ = ["METHODS", "T2S", "Marked", "Method", "Unmarked", "Vanilla"]

METHODS: dict[str, type[T2S] | type[Unmarked] | type[Vanilla]] = {"t2s": T2S, "unmarked": Unmarked, "vanilla": Vanilla}
"""Methods, the unmarked control arm among them."""
