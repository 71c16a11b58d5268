"""The exceptions that the command line turns into one line."""


class UserError(Exception):
    """Bad input or an unusable environment, told in one line.

    The command line prints it without a traceback and exits with status 2. The message names what is wrong
    (file, column or key, value) and what is allowed.
    """


class Terminated(KeyboardInterrupt):
    """SIGTERM: a batch system wants this process gone; like Ctrl-C, but by another hand.

    The command line prints one line and exits with status 143.
    """
