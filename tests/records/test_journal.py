"""The metrics journal."""

import json
import random
from pathlib import Path

import pytest

from metaray.records.journal import (
    FLUSH_EVERY_REMOTE_S,
    FLUSH_EVERY_S,
    Journal,
    JournalReader,
    Metric,
    newest_entries,
    read_journal,
)
from metaray.records.storage import Storage
from tests.damage import KINDS, damaged


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage(str(tmp_path))


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("metaray.records.journal.time.monotonic", clock)
    return clock


def numbers(storage: Storage) -> list[str]:
    """Of the segments, without their writers."""
    return [name.partition("-")[0] for name in storage.names("metrics")]


def segment(storage: Storage, number: int) -> str:
    return f"metrics/{storage.names('metrics')[number]}"


def metrics(*steps: int, value: float = 0.5, key: str = "train/loss") -> list[Metric]:
    return [Metric(key, value, step, 1_000 + step) for step in steps]


def test_what_is_flushed_can_be_read(storage: Storage) -> None:
    journal = Journal(storage)
    journal.append(metrics(2, 4))
    assert read_journal(storage) == [] and storage.names() == []
    assert journal.flush(now=True) == metrics(2, 4) == read_journal(storage)
    journal.append(metrics(6, key="val/accuracy") + metrics(6))
    assert journal.flush(now=True) == metrics(6, key="val/accuracy") + metrics(6)
    # By step, then by key.
    assert read_journal(storage) == metrics(2, 4, 6) + metrics(6, key="val/accuracy")
    assert numbers(storage) == ["000000", "000001"]


def test_a_flush_of_nothing_writes_nothing(storage: Storage) -> None:
    journal = Journal(storage)
    assert journal.flush(now=True) == [] and storage.names() == []


@pytest.mark.parametrize(("is_local", "every_s"), [(True, FLUSH_EVERY_S), (False, FLUSH_EVERY_REMOTE_S)])
def test_when_a_flush_is_due(is_local: bool, every_s: float, storage: Storage, clock: Clock) -> None:
    storage.is_local = is_local
    journal = Journal(storage)
    storage.is_local = True
    journal.append(metrics(1))
    assert journal.flush() == metrics(1)  # the first at once
    journal.append(metrics(2))
    clock.now_s += every_s - 0.01
    assert journal.flush() == []
    journal.append(metrics(3))
    clock.now_s += 0.01
    assert journal.flush() == metrics(2, 3)
    journal.append(metrics(4))
    assert journal.flush() == [] and journal.flush(now=True) == metrics(4)
    clock.now_s += every_s
    assert journal.flush() == []


def test_the_first_entry_of_a_key_and_step_stays(storage: Storage) -> None:
    journal = Journal(storage)
    journal.append(metrics(2))
    journal.append(metrics(2, value=0.125) + metrics(2, value=7.0, key="val/loss"))
    written = metrics(2) + metrics(2, value=7.0, key="val/loss")
    assert journal.flush(now=True) == written == read_journal(storage)
    journal.append(metrics(2, value=9.0))
    assert journal.flush(now=True) == []


def test_steps_that_are_done_again_are_not_repeated(storage: Storage) -> None:
    first = Journal(storage)
    first.append(metrics(2, 4, 6))
    first.flush(now=True)  # and the checkpoint of step 6 was never written
    again = Journal(storage)
    assert again.entries == metrics(2, 4, 6)
    again.append(metrics(6, 8, value=0.25))
    assert again.flush(now=True) == metrics(8, value=0.25)
    assert read_journal(storage) == metrics(2, 4, 6) + metrics(8, value=0.25)
    assert numbers(storage) == ["000000", "000001"]


@pytest.mark.parametrize(
    "line",
    [b"{", b"", b"[1, 2]", b"3", b'{"key": "a"}', b"\xff\xfe", b'{"key": "a", "value": 1, "step": 2, "extra": 1}'],
)
def test_a_damaged_line_is_left_out(line: bytes, storage: Storage) -> None:
    journal = Journal(storage)
    journal.append(metrics(2, 4, 6))
    journal.flush(now=True)
    first, _, third, _ = storage.read(segment(storage, 0)).split(b"\n")
    storage.write(segment(storage, 0), b"\n".join([first, line, third]))
    assert read_journal(storage) == metrics(2, 6)
    # It is measured again where the run does the step again.
    again = Journal(storage)
    again.append(metrics(4, 6, 8))
    again.flush(now=True)
    assert read_journal(storage) == metrics(2, 4, 6, 8)


def test_of_two_segments_with_the_same_entry_the_first_counts(storage: Storage) -> None:
    for name, value in (("000000-ffffffff", 0.5), ("000001-00000000", 0.25)):
        lines = [json.dumps(entry._asdict()) for entry in metrics(2, value=value)]
        storage.write(f"metrics/{name}.jsonl", "\n".join(lines).encode())
    assert read_journal(storage) == metrics(2)


@pytest.mark.parametrize("where", [-1, -20])
def test_a_truncated_segment_keeps_its_whole_lines(where: int, storage: Storage) -> None:
    journal = Journal(storage)
    journal.append(metrics(2, 4))
    journal.flush(now=True)
    storage.write(segment(storage, 0), storage.read(segment(storage, 0))[:where])
    assert read_journal(storage) == (metrics(2, 4) if where == -1 else metrics(2))


def test_entries_wait_while_nothing_can_be_written(
    storage: Storage, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(storage)

    def full(self: Storage, name: str, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Storage, "write", full)
        journal.append(metrics(2))
        with pytest.raises(OSError, match="No space left"):
            journal.flush()
        # Not each step anew.
        journal.append(metrics(4))
        assert journal.flush() == []
        with pytest.raises(OSError, match="No space left"):
            journal.flush(now=True)
        clock.now_s += FLUSH_EVERY_S
        with pytest.raises(OSError, match="No space left"):
            journal.flush()
    journal.append(metrics(2, value=7.0))
    clock.now_s += FLUSH_EVERY_S
    assert journal.flush() == metrics(2, 4) == read_journal(storage)


def test_a_segment_is_never_overwritten(storage: Storage) -> None:
    """Not even where somebody has removed one before it."""
    journal = Journal(storage)
    for step in (1, 2, 3):
        journal.append(metrics(step))
        journal.flush(now=True)
    Path(storage.root, segment(storage, 1)).unlink()
    again = Journal(storage)
    again.append(metrics(4))
    again.flush(now=True)
    assert read_journal(storage) == metrics(1, 3, 4)


def test_two_writers_of_whom_one_believes_the_other_dead_overwrite_nothing(storage: Storage) -> None:
    writers = [Journal(storage), Journal(storage)]
    for writer, key in zip(writers, ("train/loss", "val/loss"), strict=True):
        writer.append(metrics(1, key=key))
        writer.flush(now=True)
    assert numbers(storage) == ["000000", "000000"]
    assert read_journal(storage) == metrics(1) + metrics(1, key="val/loss")
    after = Journal(storage)
    after.append(metrics(2))
    after.flush(now=True)
    assert numbers(storage) == ["000000", "000000", "000001"]


@pytest.mark.parametrize("name", ["notes.txt", ".000000-0123abcd.jsonl.77.tmp", "000000.jsonl.bak"])
def test_other_files_are_no_segments(name: str, storage: Storage) -> None:
    storage.write(f"metrics/{name}", json.dumps(metrics(9)[0]._asdict()).encode())
    assert read_journal(storage) == [] and Journal(storage).entries == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_segment_is_named_and_yields_nothing_wrong(kind: str, storage: Storage) -> None:
    rng, journal = random.Random(kind), Journal(storage)
    journal.append(metrics(*range(1, 13)))
    written = set(journal.flush(now=True))
    name = segment(storage, 0)
    raw = storage.read(name)
    for case in range(30):
        storage.write(name, damaged(raw, kind, rng))
        reader = JournalReader(storage)
        found = set(reader.read())
        assert found <= written, f"{kind} {case}"
        assert found == written or f"{name} is damaged: " in str(reader.damage()), f"{kind} {case}"


def test_whole_lines_that_are_gone_are_missed(storage: Storage) -> None:
    journal = Journal(storage)
    journal.append(metrics(2, 4, 6))
    journal.flush(now=True)
    name = segment(storage, 0)
    lines = storage.read(name).splitlines(keepends=True)
    storage.write(name, b"".join(lines[:2]))
    again = Journal(storage)
    assert again.entries == metrics(2, 4) and again.damage == [f"{name} is damaged: 1 of its 3 entries are left out"]
    storage.write(name, b"")
    assert Journal(storage).damage == [f"{name} is damaged: nothing of it can be read"]


def test_segments_that_are_gone_are_missed(storage: Storage) -> None:
    journal = Journal(storage)
    for step in (1, 2, 3):
        journal.append(metrics(step))
        journal.flush(now=True)
    names = storage.names("metrics")
    storage.delete_file(f"metrics/{names[1]}")
    assert Journal(storage).damage == ["metrics/000001-*.jsonl is missing, and what was measured in it"]
    storage.delete_file(f"metrics/{names[2]}")
    assert Journal(storage).damage == [], "nothing tells that there was more,"
    again = Journal(storage, 3)
    assert len(again.damage) == 2 and "000002-*.jsonl is missing" in again.damage[1], "but whoever counted knows"
    again.append(metrics(4))
    again.flush(now=True)
    assert numbers(storage) == ["000000", "000003"]


def test_a_journal_of_before_there_were_checksums(storage: Storage) -> None:
    lines = [json.dumps(entry._asdict()) for entry in metrics(2, 4)]
    storage.write("metrics/000000-ffffffff.jsonl", "\n".join(lines).encode())
    reader = JournalReader(storage)
    assert reader.read() == metrics(2, 4) and reader.damage() == []
    storage.write("metrics/000001-ffffffff.jsonl", "\n".join([*lines, '{"key": "a", "value": 1}']).encode())
    assert reader.read() == metrics(2, 4) and "000001-ffffffff.jsonl is damaged: 1 of" in str(reader.damage())


@pytest.mark.parametrize(
    "changes",
    [{"key": 3}, {"key": ""}, {"value": "x"}, {"value": True}, {"step": -1}, {"step": 1.5}, {"time_ms": None}],
)
def test_no_metric(changes: dict[str, object], storage: Storage) -> None:
    line = json.dumps(metrics(2)[0]._asdict() | changes)
    storage.write("metrics/000000-ffffffff.jsonl", line.encode())
    assert read_journal(storage) == []


def test_a_segment_is_read_once(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    journal, reader, read = Journal(storage), JournalReader(storage), list[str]()
    whole = Storage.read

    def noted(self: Storage, name: str) -> bytes:
        read.append(name)
        return whole(self, name)

    monkeypatch.setattr(Storage, "read", noted)
    for step in (1, 2, 3):
        journal.append(metrics(step))
        journal.flush(now=True)
        assert reader.read() == metrics(*range(1, step + 1))
    assert len(read) == 3 == len(set(read))


def test_values_that_are_not_finite_come_back(storage: Storage) -> None:
    journal = Journal(storage)
    journal.append(metrics(1, value=float("inf")) + metrics(2, value=float("nan")))
    journal.flush(now=True)
    first, second = read_journal(storage)
    assert first.value == float("inf") and second.value != second.value and JournalReader(storage).damage() == []


def test_the_newest_segment_that_can_be_read(storage: Storage) -> None:
    assert newest_entries(storage) == []
    for step in (1, 2, 3):
        journal = Journal(storage)
        journal.append(metrics(step))
        journal.flush(now=True)
    assert [entry.step for entry in newest_entries(storage)] == [3]
    storage.write(segment(storage, 2), b"no")
    assert [entry.step for entry in newest_entries(storage)] == [2]
