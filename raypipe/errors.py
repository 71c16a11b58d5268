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
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300]
