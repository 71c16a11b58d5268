"""The one exception that means "the user can mend this"."""


class UserError(Exception):
    """Bad input or an unusable environment, told in one line.

    The command line prints it without a traceback and exits with status 2. The message names what is wrong
    (file, column or key, value) and what is allowed.
    """
