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


class HeirmarkWarning(UserWarning):
    """What was done otherwise than a user may expect; the command line prints it as one line."""


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
