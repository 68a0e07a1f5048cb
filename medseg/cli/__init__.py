"""This file is the command `medseg`: it runs a verb and turns a user's mistake into one line."""

from __future__ import annotations

import logging
import sys


def main(arguments: list[str] | None = None) -> None:
    """Run `medseg` and exit: 0 done, 1 something could not be done, 2 wrong usage, 130 interrupted."""
    sys.exit(run(arguments))


def run(arguments: list[str] | None = None) -> int:
    """Run one verb and return its exit status; every `MedsegError` becomes one line on stderr."""
    import click

    from medseg.cli.app import app
    from medseg.errors import MedsegError

    log = logging.getLogger("medseg")
    try:
        status = app(args=arguments, prog_name="medseg", standalone_mode=False)
        return status if isinstance(status, int) else 0
    except click.exceptions.Abort:
        return _say("interrupted; finished work stays, run the same command again to go on", 130)
    except KeyboardInterrupt:
        return _say("interrupted; finished work stays, run the same command again to go on", 130)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except MedsegError as error:
        log.debug("where it happened", exc_info=True)
        return _say(str(error), 1)
    except MemoryError:
        return _say("memory must suffice for this scan, got too little; close programs or use a smaller scan", 1)
    except OSError as error:
        log.debug("where it happened", exc_info=True)
        where = f"{error.filename} " if error.filename else ""
        return _say(f"{where}must be readable and writable, got {error.strerror or error}; check the path and the free space", 1)


def _say(line: str, status: int) -> int:
    print(f"medseg: {' '.join(line.split())}", file=sys.stderr)
    return status
