"""This file is the command `medseg`: it runs a verb and turns a user's mistake into one line."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable
from functools import cache


def main(arguments: list[str] | None = None) -> None:
    """Run `medseg` and exit: 0 done, 1 something could not be done, 2 wrong usage, 130 interrupted."""
    sys.exit(run(arguments))


def run(arguments: list[str] | None = None) -> int:
    """Run one verb and return its exit status."""
    # Threads that spin while they wait made training six times slower beside another program.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    return guarded(lambda: _command()(args=arguments, prog_name="medseg", standalone_mode=False))


@cache
def _command() -> Callable[..., object]:
    """All verbs; a program that runs several need not put them together each time."""
    from typer.main import get_command

    from medseg.cli.verbs import app

    return get_command(app)


def guarded(command: Callable[[], object]) -> int:
    """Run a command; a user's mistake, a full disk or Ctrl-C is one line on stderr and a status, no traceback."""
    import typer

    from medseg.errors import MedsegError

    log = logging.getLogger("medseg")
    threading.excepthook = _thread_failed
    try:
        status = command()
        return status if isinstance(status, int) else 0
    except (KeyboardInterrupt, typer.Abort):
        return _say("interrupted; finished work stays, run the same command again to go on", 130)
    except MedsegError as error:
        log.debug("where it happened", exc_info=True)
        return _say(str(error), 1)
    except MemoryError:
        return _say("memory must suffice for this scan, got too little; close programs or use a smaller scan", 1)
    except OSError as error:
        log.debug("where it happened", exc_info=True)
        where = error.filename or "the disk"
        reason = error.strerror or error
        return _say(f"{where} must be readable and writable, got {reason}; check the path and the free space", 1)
    except Exception as error:
        # Wrong usage. Newer releases of Typer carry their own click, so the class has no public name.
        if not (hasattr(error, "show") and hasattr(error, "exit_code")):
            raise
        error.show()
        return int(error.exit_code)


def _thread_failed(failure: threading.ExceptHookArgs) -> None:
    """A full disk in a thread that writes is reported by whoever waits for the thread."""
    if failure.exc_type is None or not issubclass(failure.exc_type, OSError):
        threading.__excepthook__(failure)


def _say(line: str, status: int) -> int:
    from medseg.files import printable

    print(f"medseg: {printable(' '.join(line.split()))}", file=sys.stderr)
    return status
