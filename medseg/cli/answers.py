"""This file says things in a terminal: messages on stderr, the answer of a verb on stdout."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

from medseg.files import printable


def start_logging(quiet: bool, verbose: bool) -> None:
    """Messages of medseg go to stderr as plain lines, so stdout stays the answer."""
    log = logging.getLogger("medseg")
    log.handlers = [logging.StreamHandler(sys.stderr)]
    log.handlers[0].setFormatter(_Line())
    log.propagate = False
    log.setLevel(logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO)


class _Line(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        text = printable(record.getMessage())  # names of files and cases may hold anything
        if record.exc_info:
            text = f"{text}\n{self.formatException(record.exc_info)}"
        if record.levelno >= logging.ERROR:  # as the line that ends a command
            return f"medseg: {' '.join(text.split())}"
        return f"warning: {text}" if record.levelno >= logging.WARNING else text


def answer_with(answer: dict[str, Any], as_json: bool) -> int:
    """Print the answer; status 1 when a case failed."""
    if as_json:
        print(json.dumps(answer, indent=2, ensure_ascii=False, default=str))
    else:
        for line in answer.get("lines", ()):
            print(printable(line))
    return 1 if answer.get("failed") else 0
