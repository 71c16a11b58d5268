"""The one exception that means "the user can mend this"."""

from raypipe.redact import redact


class UserError(Exception):
    """Bad input or an unusable environment, told in one line.

    The command line prints it without a traceback and exits with status 2. The message names what is wrong
    (file, column or key, value) and what is allowed. Passwords of URIs in it are hidden.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(redact(message))


def first_line(error: BaseException) -> str:
    """What an exception says first, on one line; the name of its class where it says nothing."""
    return _lines(error)[0][:300]


def last_line(error: BaseException | str) -> str:
    """What an exception, or a traceback, says at its end: what it is about."""
    return _lines(error)[-1].removeprefix("raypipe.errors.UserError: ")


def _lines(error: BaseException | str) -> list[str]:
    return [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
