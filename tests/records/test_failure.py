"""What a failed run leaves."""

from pathlib import Path

import pytest

from metaray.errors import Diverged, InputError, RunFailed, RunStopped
from metaray.records.failure import FAILURE, as_failure, failure_text, forget_failure, write_failure
from metaray.records.storage import Storage


def test_what_nobody_foresaw_is_told_with_its_lines() -> None:
    try:
        dict[str, int]()["b"]
    except KeyError as error:
        failure = as_failure(error)
    assert isinstance(failure, RunFailed) and isinstance(failure.__cause__, KeyError)
    assert str(failure).startswith("KeyError: 'b' (") and 'dict[str, int]()["b"]' in failure.told
    assert failure.tracebacks.startswith("Traceback (most recent call last):")


@pytest.mark.parametrize(
    "error", [InputError("x"), RunFailed("x"), Diverged("x"), RunStopped("x"), KeyboardInterrupt(), SystemExit()]
)
def test_what_is_raised_on_purpose_stays(error: BaseException) -> None:
    assert as_failure(error) is error


def test_the_folder_says_why_and_the_error_says_where(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    error = RunFailed("worker 1: no", told="own.py:3: in f", tracebacks="Traceback of s3://me:secret@bucket")
    write_failure(storage, error)
    text = storage.read(FAILURE).decode()
    assert text[20:] == failure_text(error)[20:] and text.splitlines()[0].endswith("UTC: worker 1: no")
    assert "own.py:3: in f\n\nTraceback of" in text and "secret" not in text
    assert error.__notes__ == [f"the whole traceback of each process: {tmp_path}/{FAILURE}"]


def test_a_full_disk_does_not_hide_what_ended_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(name: str, data: bytes) -> None:
        raise OSError("No space left on device")

    storage, error = Storage(str(tmp_path)), RunFailed("no")
    monkeypatch.setattr(storage, "write", full)
    write_failure(storage, error)
    assert error.__notes__ == [f"{FAILURE} could not be written: No space left on device"]


def test_a_run_that_went_on_to_a_good_end_leaves_none(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    forget_failure(storage)
    write_failure(storage, RunFailed("no"))
    forget_failure(storage)
    assert storage.names() == []
