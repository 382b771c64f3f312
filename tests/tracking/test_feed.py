"""From the journal to a tracker: each metric once, whoever is away or is killed."""

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from metaray.errors import RunFailed
from metaray.experiment.experiment import Experiment
from metaray.records.events import Event, Listener
from metaray.records.execution import EXECUTION, Executed, write_executed
from metaray.records.journal import Journal, Metric
from metaray.records.run import Run
from metaray.records.storage import Storage
from metaray.tracking import feed as module
from metaray.tracking.feed import FeedListener, JournalFeed
from metaray.tracking.tracker import Ending, Tracker
from tests.patience import PATIENT_S, wait_until


class Lines(Tracker):
    """A tracker that is away while `away` is set."""

    kind, title = "lines", "Lines"

    def __init__(self) -> None:
        self.calls: list[list[Metric]] = []
        self.away = ""
        self.where = "here"

    @property
    def place(self) -> str:
        return self.where

    def begin(self, experiment: Experiment, run: Run, say: Callable[[str], None]) -> None: ...

    def log(self, metrics: Sequence[Metric]) -> None:
        if self.away:
            raise ConnectionError(self.away)
        self.calls.append(list(metrics))

    def log_file(self, path: Path, folder: str = "") -> None: ...

    def end(self, ending: Ending, why: str = "") -> None: ...

    @property
    def got(self) -> list[Metric]:
        return [metric for call in self.calls for metric in call]


class Ear(Listener):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def on_event(self, event: Event) -> None:
        assert event.kind == "note"
        self.notes.append(event.text)

    def close(self) -> None:
        raise AssertionError("the display belongs to others")


NEWS = Event("metrics", 0, {}, 0.0)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run("x", Storage(str(tmp_path / "x")))


@pytest.fixture
def journal(run: Run) -> Journal:
    return Journal(run.storage)


def write(journal: Journal, *steps: int) -> list[Metric]:
    """A segment."""
    entries = [Metric("train/loss", step / 2, step, 1000 + step) for step in steps]
    journal.append(entries)
    assert journal.flush(now=True) == entries
    return entries


def test_each_metric_is_sent_once_also_by_the_next_process(run: Run, journal: Journal) -> None:
    tracker = Lines()
    first = write(journal, 1, 2)
    feed = JournalFeed(run, tracker)
    feed.send()
    feed.send()
    second = write(journal, 3)
    feed.send()
    assert tracker.calls == [first, second]
    third = write(journal, 4)
    JournalFeed(run, tracker).send()
    assert tracker.calls == [first, second, third]


def test_what_was_not_taken_comes_again_and_nothing_twice(run: Run, journal: Journal) -> None:
    tracker, feed = Lines(), None
    entries = write(journal, 1)
    tracker.away = "refused"
    feed = JournalFeed(run, tracker)
    with pytest.raises(ConnectionError):
        feed.send()
    tracker.away = ""
    entries += write(journal, 2)
    feed.send()
    assert tracker.got == entries


def test_another_place_gets_all_of_it(run: Run, journal: Journal) -> None:
    tracker = Lines()
    entries = write(journal, 1) + write(journal, 2)
    JournalFeed(run, tracker).send()
    tracker.where = "elsewhere"
    JournalFeed(run, tracker).send()
    assert tracker.got == entries + entries


def test_two_of_ones_own_do_not_share_a_position(run: Run, journal: Journal) -> None:
    class One(Lines):
        kind = ""

    class Other(Lines):
        kind = ""

    entries, one, other = write(journal, 1), One(), Other()
    for tracker in (one, other):
        JournalFeed(run, tracker).send()
    assert one.got == other.got == entries


@pytest.mark.parametrize("content", [b"", b"{}", b"not JSON", b'{"place": "here", "segments": -1, "sha256": "0"}'])
def test_a_position_that_cannot_be_read_is_none(content: bytes, run: Run, journal: Journal) -> None:
    entries = write(journal, 1)
    run.storage.write("fed-lines.json", content)
    tracker = Lines()
    JournalFeed(run, tracker).send()
    assert tracker.got == entries


def test_where_the_position_cannot_be_written_it_is_sent_twice_rather_than_not(
    run: Run, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(module, "write_record", full)
    tracker = Lines()
    entries = write(journal, 1)
    for _ in range(2):
        JournalFeed(run, tracker).send()
    assert tracker.got == entries * 2


def test_in_the_background_while_training_goes_on(run: Run, journal: Journal) -> None:
    tracker, ear = Lines(), Ear()
    listener = FeedListener(JournalFeed(run, tracker, every_s=0.01), ear)
    entries = write(journal, 1)
    listener.on_event(NEWS)
    wait_until(lambda: tracker.got)
    entries += write(journal, 2)  # nobody tells: the end sends it
    listener.close()
    assert tracker.got == entries and ear.notes == []


def test_an_absence_is_told_once_and_so_is_its_end(run: Run, journal: Journal) -> None:
    tracker, ear = Lines(), Ear()
    feed = JournalFeed(run, tracker, every_s=0.01)
    listener = FeedListener(feed, ear)
    tracker.away = "http://me:secret@away does not answer\nTraceback ..."
    entries = write(journal, 1)
    listener.on_event(NEWS)
    wait_until(lambda: feed.problem)
    for _ in range(3):
        listener.on_event(Event("step", 0, {}, 0.0))
    tracker.away = ""
    wait_until(lambda: feed.problem is None)  # without another event
    for _ in range(3):
        listener.on_event(Event("step", 0, {}, 0.0))
    assert ear.notes == [
        "http://me:***@away does not answer; metrics wait in the run's journal, and training goes on",
        "Lines takes metrics again",
    ]
    listener.close()
    assert tracker.got == entries


def test_what_is_left_at_the_end_is_no_failure_of_the_run(
    run: Run, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SHORTLY", (0.0,))
    tracker, ear = Lines(), Ear()
    tracker.away = "refused"
    write(journal, 1)
    listener = FeedListener(JournalFeed(run, tracker, every_s=60.0), ear)
    listener.on_event(NEWS)
    listener.close()
    assert ear.notes == ["refused; metrics wait in the run's journal"]


def test_the_end_does_not_wait_for_ever(run: Run, journal: Journal) -> None:
    release = threading.Event()

    class Hangs(Lines):
        def log(self, metrics: Sequence[Metric]) -> None:
            release.wait(PATIENT_S)
            raise RunFailed("too late")

    write(journal, 1)
    feed = JournalFeed(run, Hangs(), every_s=0.0)
    feed.wake()
    feed.close(within_s=0.1)
    assert feed.problem == "Lines does not answer within 0.1 s"
    release.set()


class Facts(Lines):
    def __init__(self) -> None:
        super().__init__()
        self.told: list[Mapping[str, str]] = []

    def describe(self, facts: Mapping[str, str]) -> None:
        if self.away:
            raise ConnectionError(self.away)
        self.told.append(facts)


def test_how_a_run_is_computed_is_told_once_it_is_known(run: Run, journal: Journal) -> None:
    tracker = Facts()
    feed = JournalFeed(run, tracker)
    write(journal, 1)
    assert feed.send() and tracker.told == [], "a run of before that was written down"
    executed = Executed(kind="batched", convolutions="grouped", data_on="host", most_workers=3)
    write_executed(run.storage, executed)
    tracker.away = "gone"
    with pytest.raises(ConnectionError):
        feed.send()
    tracker.away = ""
    assert not feed.send() and not feed.send() and len(tracker.told) == 1
    assert tracker.told[0] == {
        "execution": "batched",
        "execution.device": "cpu",
        "execution.convolutions": "grouped",
        "execution.data_on": "host",
        "execution.most_workers": "3",
    }
    run.storage.write(EXECUTION, b"{")
    write(journal, 2)
    assert JournalFeed(run, Facts()).send(), "metrics come all the same"
