"""Errors a user can mend. Each message is one sentence that names the remedy; the command line prints it without a traceback."""

from contextlib import suppress

_SHORTAGE = (
    "not enough memory",
    "can't allocate memory",
    "cannot allocate memory",
    "failed to allocate memory",
    "out of memory",
    "bad_alloc",
    "alloc_failed",
)
"""Words by which torch, its allocators, onnxruntime and the C++ library tell that memory ran out, in plain errors."""


class HeirmarkError(Exception):
    """Base of every error that heirmark raises on purpose."""


class BadConfig(HeirmarkError):
    """A configuration value is unknown, mistyped or out of range."""


class DataNotFound(HeirmarkError):
    """A data set is not where it was looked for."""


class BadData(HeirmarkError):
    """A data set was found, but its content cannot be used."""


class BadArtifact(HeirmarkError):
    """A file is truncated, foreign, tampered with or larger than allowed."""


class ShapeMismatch(HeirmarkError):
    """Inputs, models or keys do not fit each other."""


class BudgetExhausted(HeirmarkError):
    """A query would exceed the budget of a black box."""


class HeirmarkWarning(UserWarning):
    """What was done otherwise than a user may expect; the command line prints it as one line."""


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the machine ran out of memory, for which no model is to blame."""
    # torch.OutOfMemoryError by its name, since torch takes seconds to import.
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if not (isinstance(error, RuntimeError) or type(error).__module__.startswith("onnxruntime.")):
        return False
    words = ""
    with suppress(Exception):  # a foreign error may raise anything when it is printed
        words = str(error).lower()
    return any(sign in words for sign in _SHORTAGE)


def told(error: BaseException) -> str:
    """What went wrong, on one line that is fit to show; an error that cannot even be printed is named."""
    try:
        words = printable(str(error).strip().partition("\n")[0][:300])
    except KeyboardInterrupt:
        raise
    except BaseException:  # a foreign error may raise anything when it is printed
        words = ""
    return words if isinstance(error, HeirmarkError) else ": ".join(filter(None, (type(error).__name__, words)))


def printable(text: str) -> str:
    r"""Untrusted text made fit to show: white space becomes a space; control, bidi and lone surrogate characters a mark.

    Examples:
        >>> printable("model\n\u202egpj.exe")
        'model �gpj.exe'
    """
    return "".join(char if char.isprintable() else " " if char.isspace() else "\ufffd" for char in text)
