"""The metrics journal."""

from pathlib import Path

import pytest

from metaray.training.journal import Journal, Metric, read_journal
from metaray.training.storage import Storage


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(str(tmp_path))


def metrics(*steps: int, value: float = 0.5, key: str = "train/loss") -> list[Metric]:
    return [Metric(key, value, step, 1_000 + step) for step in steps]


def test_what_is_committed_can_be_read(storage: Storage) -> None:
    journal = Journal(storage, 0)
    journal.append(metrics(2, 4))
    assert read_journal(storage) == []
    journal.commit(4)
    journal.append(metrics(6, key="val/accuracy") + metrics(6))
    journal.commit(6)
    assert read_journal(storage) == metrics(2, 4, 6) + metrics(6, key="val/accuracy")
    assert read_journal(storage, end=5) == metrics(2, 4)
    assert storage.names("metrics") == ["000000000-000000004.jsonl", "000000004-000000006.jsonl"]


def test_a_commit_of_nothing_writes_nothing(storage: Storage) -> None:
    journal = Journal(storage, 0)
    journal.commit(4)
    assert storage.names() == []
    journal.append(metrics(5))
    journal.commit(8)
    assert storage.names("metrics") == ["000000004-000000008.jsonl"]


def test_steps_that_are_done_again_are_counted_once(storage: Storage) -> None:
    first = Journal(storage, 0)
    first.append(metrics(2, 4))
    first.commit(4)
    first.append(metrics(6))
    first.commit(6)  # and the checkpoint of step 6 was never written
    again = Journal(storage, 4)
    again.append(metrics(6, 8, value=0.25))
    again.commit(8)
    assert read_journal(storage) == metrics(2, 4) + metrics(6, 8, value=0.25)
    assert read_journal(storage, end=4) == metrics(2, 4)
