"""Errors of the user's own code are wrong input, told with the lines they came from."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from metaray.errors import InputError, RunFailed, RunStopped
from metaray.tracebacks import shown, told, user_frames


@contextmanager
def users_code(what: str, *, surely: bool = True) -> Iterator[None]:
    """Within the block, turn errors raised by the user's own code into input errors that show their lines.

    Errors that metaray raises on purpose pass through unchanged.

    Args:
        what: Sentence that says what failed, such as "nets:Net raised an error as it was built".
        surely: Whether the code is the user's own even if no line in the traceback is, as in an installed package. If
            not, such an error counts as a defect of metaray and passes through.

    Raises:
        InputError: If the code raises any error.
    """
    try:
        yield
    except (InputError, RunFailed, RunStopped):
        raise
    except (Exception, SystemExit) as error:
        if not surely and not user_frames(error):
            raise
        raise InputError(f"{what}:\n{lines_of(error)}") from error


def lines_of(error: BaseException) -> str:
    """Where an error occurred, for a terminal; for a syntax error, which has no traceback, the line itself."""
    if not isinstance(error, SyntaxError) or error.filename is None:
        return told(error)
    text = f"    {error.text.strip()}\n" if error.text else ""
    return f"{shown(error.filename)}:{error.lineno}\n{text}E   {type(error).__name__}: {error.msg}"


def defined_at(function: Callable[..., object]) -> str:
    """Place where a function or class is defined, as in "nets.py:12: def forward(self, x):"; empty if unknown."""
    try:
        file, (lines, number) = inspect.getsourcefile(function), inspect.getsourcelines(function)
    except (OSError, TypeError):
        return ""
    found = ((number + i, line.strip()) for i, line in enumerate(lines) if line.strip().startswith(("def ", "class ")))
    number, line = next(found, (number, lines[0].strip()))
    return f"{shown(file or '?')}:{number}: {line}"
