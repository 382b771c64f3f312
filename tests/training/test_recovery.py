"""What to do when something fails, case by case."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metaray.training.recovery import (
    LOSSES,
    RESTARTS,
    RETRIES_OF_AN_EXCEPTION,
    SILENT_S,
    WAITS,
    Action,
    Failure,
    Heartbeat,
    given_up,
    hung,
    next_action,
)

LOST, HUNG, RAISED = ((lambda step, kind=kind: Failure(kind, step, f"worker 1: {kind}")) for kind in LOSSES)
SKIPPED, NEEDED = Failure("checkpoint", 0, "disk full"), Failure("last checkpoint", 9, "disk full")

CASES: dict[str, tuple[list[Failure], Action]] = {
    "a worker is lost": ([LOST(0)], "restart"),
    "a worker hangs": ([HUNG(3)], "restart"),
    "an exception": ([RAISED(3)], "restart"),
    "the same exception": ([RAISED(3)] * (RETRIES_OF_AN_EXCEPTION + 1), "raise"),
    "another exception after a newer checkpoint": ([RAISED(3), RAISED(4)], "restart"),
    "an exception between lost workers": ([LOST(3), RAISED(3), LOST(3)], "restart"),
    "an exception, a lost worker, the exception": ([RAISED(3), LOST(3), RAISED(3)], "raise"),
    "lost as often as is borne": ([LOST(3)] * RESTARTS, "restart"),
    "lost once more": ([LOST(3)] * (RESTARTS + 1), "raise"),
    "lost and hung count together": ([LOST(3), HUNG(3)] * 3, "raise"),
    "lost for ever, getting ahead each time": ([LOST(step) for step in range(50)], "restart"),
    "lost again after long quiet": ([LOST(3)] * RESTARTS + [LOST(7)], "restart"),
    "no checkpoint this time": ([SKIPPED], "go on"),
    "no checkpoint for long": ([SKIPPED] * 100, "go on"),
    "skipped checkpoints are no lost workers": ([SKIPPED] * 100 + [LOST(0)], "restart"),
    "the last checkpoint": ([NEEDED], "wait"),
    "the last checkpoint, for a minute": ([NEEDED] * WAITS, "wait"),
    "the last checkpoint, for longer": ([NEEDED] * (WAITS + 1), "raise"),
    "the last checkpoint after skipped ones": ([SKIPPED._replace(step=9)] * 20 + [NEEDED], "wait"),
}


@pytest.mark.parametrize("case", CASES)
def test_next_action(case: str) -> None:
    failures, action = CASES[case]
    assert next_action(failures) == action


losses = st.lists(st.builds(Failure, st.sampled_from(LOSSES), st.integers(0, 3)), min_size=1, max_size=40)


@given(losses)
def test_a_run_that_never_gets_ahead_ends(failures: list[Failure]) -> None:
    """Whatever happens: no more restarts in a row than are borne without a newer checkpoint."""
    actions = [next_action(failures[: i + 1]) for i in range(len(failures))]
    for step in range(4):
        at = [a for f, a in zip(failures, actions, strict=True) if f.step == step]
        assert at.count("restart") <= RESTARTS


@pytest.mark.parametrize(
    ("failures", "words"),
    [
        ([LOST(4)], "gave up after 1 failure without a checkpoint beyond step 4; worker 1: worker lost"),
        (
            [LOST(2), HUNG(4), RAISED(4)],
            "gave up after 2 failures without a checkpoint beyond step 4; worker 1: exception",
        ),
        ([SKIPPED._replace(step=4), LOST(4)], "gave up after 1 failure without"),
    ],
)
def test_given_up(failures: list[Failure], words: str) -> None:
    assert given_up(failures).startswith(words)


QUIET = SILENT_S + 1


@pytest.mark.parametrize(
    ("heartbeats", "blamed"),
    [
        ({}, []),
        ({0: Heartbeat("computing", 21, 0), 1: Heartbeat("reducing", 99, 0)}, [0]),
        ({0: Heartbeat("computing", 20, 0)}, []),
        # One hangs, the others wait for it in a collective.
        ({0: Heartbeat("reducing", 22, 0), 1: Heartbeat("computing", 22, 0), 2: Heartbeat("reducing", 22, 0)}, [1]),
        ({0: Heartbeat("reducing", 22, 1), 1: Heartbeat("waiting for episodes", 22, 1)}, [1]),
        ({0: Heartbeat("saving", 99, 0), 1: Heartbeat("reducing", 99, 0)}, [0]),
        ({0: Heartbeat("computing", 22, 0), 1: Heartbeat("judging", 22, 0)}, [0, 1]),
        # A process stands still within a collective: its last word is the same as that of those who wait for it.
        ({0: Heartbeat("reducing", 22, 1), 1: Heartbeat("reducing", 22, QUIET)}, [1]),
        ({0: Heartbeat("computing", 22, 1), 1: Heartbeat("reducing", 22, QUIET)}, [1]),
        ({0: Heartbeat("reducing", 22, QUIET), 1: Heartbeat("computing", 22, QUIET)}, [0, 1]),
        # All wait in a collective: a connection broke without a word.
        ({0: Heartbeat("reducing", 22, 0), 1: Heartbeat("reducing", 22, 0)}, [0, 1]),
        # The other one is not late yet; it will be blamed if it stays so.
        ({0: Heartbeat("reducing", 22, 0), 1: Heartbeat("computing", 2, 0)}, []),
        ({0: Heartbeat("reducing", 22, 0), 1: Heartbeat("reducing", 2, 0)}, []),
        # Silence alone is nothing: the machine may be busy.
        ({0: Heartbeat("computing", 19, 19), 1: Heartbeat("reducing", 19, 0)}, []),
    ],
)
def test_hung(heartbeats: dict[int, Heartbeat], blamed: list[int]) -> None:
    assert hung(heartbeats, timeout_s=20) == blamed


def test_a_short_timeout_shortens_the_silence_too() -> None:
    assert hung({0: Heartbeat("reducing", 6, 0.5), 1: Heartbeat("reducing", 6, 5.5)}, timeout_s=5) == [1]
