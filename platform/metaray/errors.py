"""What metaray raises on purpose.

    ValueError
      InputError          the user's input is wrong; the message says what, where and what would be right (exit 2)
    RuntimeError
      RunFailed           a run started and could not finish (exit 1)
        Diverged          its loss or gradient became infinite or NaN, which would only happen again (exit 1)
      RunStopped          a signal stopped the run after a checkpoint (exit 75)

    UserWarning
      BatchMatters        an answer is given that depends on the other queries of its call, where that is likely to hurt

Everything else that escapes is a defect of metaray or of the machine.
"""

import traceback
from collections.abc import Iterable
from difflib import get_close_matches

from metaray.uris import redacted as redacted


class InputError(ValueError):
    """Invalid input, found before anything expensive started."""


class RunFailed(RuntimeError):
    """A run, search or evaluation that started and could not finish.

    Attributes:
        told: The place of the error in a few lines, the user's own code first; empty if the message says everything.
        tracebacks: Complete tracebacks of all processes that raised an exception; empty if none did.
    """

    def __init__(self, message: str, *, told: str = "", tracebacks: str = "") -> None:
        super().__init__(message)
        self.told, self.tracebacks = told, tracebacks


class Diverged(RunFailed):
    """A run whose loss or gradient is not finite: the same experiment would come to that again."""


class RunStopped(RuntimeError):
    """A run that a signal or `should_stop` stopped; its last step is in a checkpoint."""


class BatchMatters(UserWarning):
    """Warning that a transductive learner gets batches of queries unlike those of its evaluation.

    Its predictions may be far off.
    """


def unknown(what: str, got: str, known: Iterable[str]) -> InputError:
    """Error for a name that is not among the `known` ones, with the nearest right name."""
    names = sorted(known)
    near = get_close_matches(got, names, n=1, cutoff=0.5)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    listed = ", ".join(names) if names else "none"
    return InputError(f"unknown {what} {got!r}.{hint} Known: {listed}.")


def shareable(error: BaseException) -> BaseException | None:
    """The error if it may be shown as the cause of another; None if it, or an error behind it, contains a secret."""
    told = "".join(traceback.format_exception(error))
    return error if redacted(told) == told else None
