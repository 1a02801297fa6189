"""Failures of users' functions, in words."""

from __future__ import annotations

import os

# Frames of ours are never the place to point at.
_OUR_FILES = ("_stage_runner.pyx", "_stage_values.pyx")


class ResultError(Exception):
    """A function returned something that cannot become its stage's outputs."""


def name_of(function: object) -> str:
    """What a function is called in messages."""
    return getattr(function, "__name__", None) or type(function).__name__


def describe_error(error: BaseException, function: object, directory: str) -> str:
    """An exception in one line, with the user's own file and line.

    Args:
        error: What was raised.
        function: The function that the stage called.
        directory: Where users' own code lies, with a separator at the end.

    Returns:
        ``<exception type>: <message> (<file>:<line>, function <name>)``
    """
    place = None
    trace = error.__traceback__
    while trace is not None:
        path = trace.tb_frame.f_code.co_filename
        mine = path.endswith(_OUR_FILES)
        if not mine and (place is None or os.path.realpath(path).startswith(directory)):
            place = (path, trace.tb_lineno)
        trace = trace.tb_next
    if place is None:
        code = getattr(function, "__code__", None)
        if code is not None:
            place = (code.co_filename, code.co_firstlineno)
    try:
        message = str(error)
    except Exception:
        message = "<its text cannot be made>"
    head = message if isinstance(error, ResultError) else f"{type(error).__name__}: {message}"
    where = f"function {name_of(function)}"
    if place is not None:
        path = os.path.realpath(place[0])
        shown = path[len(directory) :] if path.startswith(directory) else os.path.basename(path)
        where = f"{shown}:{place[1]}, {where}"
    return f"{head} ({where})"
