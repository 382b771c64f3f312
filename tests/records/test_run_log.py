"""The log file of a run."""

import logging
import re
from pathlib import Path
from typing import Any

import pytest

from metaray.records import run_log
from metaray.records.events import Event
from metaray.records.run_log import LOG
from metaray.records.storage import Storage


def step(number: int) -> Event:
    return Event("step", number, {"step": float(number), "loss": 0.5}, 0.0)


def test_what_a_run_says_is_kept_with_the_time(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path / "run"))
    for _ in range(2):  # a run that goes on adds to what is there
        with run_log.run_log(storage) as listener:
            listener.on_event(Event("note", 0, {}, 0.0, "at s3://me:secret@bucket"))
            listener.on_event(Event("phase", 0, {}, 0.0, "training"))
            listener.on_event(step(1))
            listener.on_event(step(2))
            listener.on_event(Event("metrics", 2, {"a": 1.0}, 0.0))
            listener.on_event(Event("evaluation", 2, {"val/loss": 0.25}, 0.0))
            listener.on_event(Event("failed", 2, {}, 0.0, "no room"))
            logging.getLogger("metaray.elsewhere").warning("look")
            listener.close()
    lines = storage.read(LOG).decode().splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC (INFO|WARNING|ERROR) ", line) for line in lines)
    said = [line.split(" UTC ")[1] for line in lines]
    assert said[:6] == [
        "INFO at s3://me:***@bucket",
        "INFO phase: training",
        "INFO step 1: loss 0.5",
        "INFO step 2: evaluation val/loss 0.25",
        "ERROR step 2: failed no room",
        "WARNING look",
    ]
    assert said[6:] == said[:6]


def test_of_the_steps_one_a_minute_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(run_log.time, "monotonic", lambda: now[0])
    storage = Storage(str(tmp_path))
    with run_log.run_log(storage) as listener:
        for number in range(200):
            now[0] = float(number)
            listener.on_event(step(number))
    assert len(storage.read(LOG).decode().splitlines()) == 4


def test_an_object_store_gets_it_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = Storage(str(tmp_path))
    storage.is_local = False
    written: dict[str, bytes] = {LOG: b"before\n"}
    monkeypatch.setattr(storage, "exists", written.__contains__)
    monkeypatch.setattr(storage, "read", written.__getitem__)
    monkeypatch.setattr(storage, "write", written.__setitem__)
    with run_log.run_log(storage) as listener:
        listener.on_event(Event("note", 0, {}, 0.0, "here"))
        assert written[LOG] == b"before\n"
    assert written[LOG].startswith(b"before\n2") and written[LOG].endswith(b" INFO here\n")


def test_a_log_that_cannot_be_written_ends_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / LOG).mkdir()
    with run_log.run_log(Storage(str(tmp_path))) as listener:
        listener.on_event(Event("note", 0, {}, 0.0, "here"))
    assert capsys.readouterr() == ("", "")


def test_the_package_logs_nothing_on_its_own(tmp_path: Path, capfd: Any) -> None:
    package = logging.getLogger("metaray")
    before = (package.level, list(package.handlers))
    with run_log.run_log(Storage(str(tmp_path))) as listener:
        listener.on_event(Event("failed", 0, {}, 0.0, "no"))
    logging.getLogger("metaray.run").error("afterwards")
    assert capfd.readouterr() == ("", "") and (package.level, package.handlers) == before
