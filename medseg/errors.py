"""This file holds the one exception that means: the user can mend this.

Its message is one line, `<thing> must <condition>, got <value>; <what to do>`, and names the
file. The command line prints that line without a traceback and ends with a non-zero status.
"""


class MedsegError(ValueError):
    """An input, a setting or the machine does not allow what was asked; the message says what to do."""


def mistake_behind(error: BaseException | None) -> MedsegError | None:
    """The user's mistake behind an error that a library has wrapped, or None."""
    while error is not None and not isinstance(error, MedsegError):
        error = error.__cause__
    return error
