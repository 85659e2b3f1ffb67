"""Errors a user can mend. Each message is one sentence that names the remedy; the command line prints it without a traceback."""


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


def told(error: BaseException) -> str:
    """What went wrong, on one line."""
    words = str(error).strip().partition("\n")[0][:300]
    return words if isinstance(error, HeirmarkError) else f"{type(error).__name__}: {words}"
