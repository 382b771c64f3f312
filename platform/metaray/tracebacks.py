"""What an error's traceback says to a user: first the lines of their own code, as pytest shows them."""

import functools
import linecache
import sysconfig
import traceback
from pathlib import Path

FRAMES = 12
"""Frames of the user's own that are shown; of more, the innermost."""


def summary(error: BaseException) -> str:
    """An error in one line, with the place in the user's own code where it occurred, if there is one.

    Example: `KeyError: 'b' (nets.py:23, in forward)`.
    """
    frames = user_frames(error)
    place = f" ({shown(frames[-1].filename)}:{frames[-1].lineno}, in {frames[-1].name})" if frames else ""
    return f"{headline(error)}{place}"


def headline(error: BaseException) -> str:
    """Type and message of an error, the first line alone."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def told(error: BaseException) -> str:
    """Where an error occurred, for a terminal: the user's own frames, innermost last, then the error.

    If no frame is the user's own, the innermost frame is shown, so that there is always a file and a line.
    """
    frames = user_frames(error) or list(traceback.extract_tb(error.__traceback__))[-1:]
    lines = ["(frames further out are left out)"] if len(frames) > FRAMES else []
    for frame in frames[-FRAMES:]:
        lines.append(f"{shown(frame.filename)}:{frame.lineno}: in {frame.name}")
        if frame.line:
            lines.append(f"    {frame.line}")
    message = str(error).strip().splitlines() or [""]
    lines += [f"E   {f'{type(error).__name__}: {message[0]}'.rstrip(': ')}", *(f"E   {line}" for line in message[1:])]
    return "\n".join(lines)


def whole(error: BaseException) -> str:
    """The complete traceback of an error and of its causes, as Python prints it."""
    return "".join(traceback.format_exception(error))


def user_frames(error: BaseException) -> list[traceback.FrameSummary]:
    """The frames that are neither metaray's, nor an installed package's, nor Python's own; innermost last.

    Those of the errors that led to this one come first.
    """
    chain, seen = [error], {id(error)}
    while (cause := chain[-1].__cause__ or _context(chain[-1])) is not None and id(cause) not in seen:
        chain.append(cause)
        seen.add(id(cause))
    found = [frame for one in reversed(chain) for frame in traceback.extract_tb(one.__traceback__)]
    linecache.checkcache()
    return [frame for frame in found if is_users(frame.filename)]


def _context(error: BaseException) -> BaseException | None:
    return None if error.__suppress_context__ else error.__context__


@functools.cache
def _others() -> tuple[str, ...]:
    paths = sysconfig.get_paths()
    folders = {paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")} | {str(Path(__file__).parent)}
    # A virtual environment's standard library lies elsewhere than its packages.
    return tuple({f"{Path(folder)}/" for folder in folders} | {f"{Path(folder).resolve()}/" for folder in folders})


def is_users(filename: str) -> bool:
    """Whether a file is the user's own: neither metaray's, nor an installed package's, nor Python's."""
    return not filename.startswith(("<", *_others())) and "/site-packages/" not in filename


def shown(filename: str) -> str:
    """A file name relative to the working directory, if the file lies below it."""
    try:
        return str(Path(filename).relative_to(Path.cwd()))
    except ValueError:
        return filename
