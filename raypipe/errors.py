"""The one exception that means "the user can mend this"."""

from raypipe.redact import redact


class UserError(Exception):
    """Bad input or an unusable environment, told in one line.

    The command line prints it without a traceback and exits with status 2. The message names what is wrong
    (file, column or key, value) and what is allowed. Passwords of URIs in it are hidden.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(redact(message))
