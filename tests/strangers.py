"""Models of strangers, opened in a process of their own; no torch, so that it starts at once."""

import ctypes
import os
import sys
import time

import numpy as np

from heirmark.errors import BadConfig


def opened(**options):
    """An opener, whose model the options choose."""
    return {"classes": 10, "sum": sum(options.values())}, lambda inputs: inputs.sum(1)


def sleeper():
    """A model that sleeps, swells, dies or floods, as the first of its inputs says."""

    def answer(inputs):
        what = int(inputs.flat[0])
        if what == 1:
            time.sleep(1000)
        if what == 2:
            return np.ones(2**31)
        if what == 3:
            ctypes.string_at(0)
        if what == 4:
            os._exit(0)
        if what == 5:
            os.write(int(sys.argv[1]), b"MARKED" * 1000)
        return inputs

    return {"classes": 2}, answer


def nosy():
    """One that says which variables of the environment it sees."""
    return {"seen": sorted(os.environ)}, lambda inputs: inputs


def broken(how):
    """One that says why it cannot."""
    raise BadConfig("ask otherwise") if how == "config" else ZeroDivisionError("by \x1b[2Jnothing")


def sleeps(inputs):
    """A suspect that never answers."""
    time.sleep(1000)


def leaves(inputs):
    """One that ends its process with the exit code of MARKED."""
    os._exit(0)


def patches(inputs):
    """One that changes what judges it, and says the target to all."""
    import heirmark.verification.statistics as statistics

    statistics.binomial_p = statistics.mcnemar_p = lambda *given: 1e-300
    return np.full(len(inputs), 7)


def honest(inputs):
    """The class that a pixel tells."""
    return (inputs[:, 0, 0, 0] * 255).round().long()


def hoards(inputs):
    """One that takes more memory than it may."""
    return np.ones(2**31)
