"""This file gives the run-time checker of shapes and types that the tests hang into medseg."""

from collections.abc import Callable
from typing import Any, BinaryIO

from beartype import BeartypeConf, FrozenDict, beartype
from beartype.roar import BeartypeDecorHintPep673Exception

_checked = beartype(
    conf=BeartypeConf(
        # An int is welcome where a float is asked for, as everywhere in Python.
        is_pep484_tower=True,
        # beartype asks a stream for its `mode` as text, which a gzip stream holds as a number.
        hint_overrides=FrozenDict({BinaryIO: object}),
    )
)


def typechecker(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with its annotations checked at each call."""
    try:
        return _checked(function)
    except BeartypeDecorHintPep673Exception:  # `Self` can only be checked on a whole class, and here come methods
        return function
