"""A few damaged inputs of every kind; `make fuzz` tries hundreds."""

import pytest

from tests.fuzz.runner import Surface, fuzz
from tests.fuzz.surfaces import surfaces

CASES = range(12)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[Surface]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tempfile.tempdir", str(tmp_path_factory.mktemp("scratch")))
        patch.setenv("TMPDIR", str(tmp_path_factory.mktemp("children")))
        return surfaces(tmp_path_factory.mktemp("whole"))


def test_damaged_input_is_refused_or_changes_nothing(made: list[Surface], monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(made) == 14
    found = {surface.name: fuzz(surface, 0, CASES) for surface in made}
    assert {name: report.bad for name, report in found.items() if report.bad} == {}
    assert all(report.counts["clean"] for report in found.values())


def crash(given: str) -> object:
    if given == "whole":
        return 1
    if given == "raise":
        raise KeyError(given)
    if given == "hang":
        while True:
            pass
    if given == "memory":
        return len(bytearray(8 << 30))
    import os

    os.kill(os.getpid(), 11)
    return None


@pytest.mark.parametrize(
    ("given", "outcome"), [("raise", "exception"), ("hang", "hang"), ("memory", "exception"), ("die", "crash")]
)
def test_what_goes_badly_is_seen(given: str, outcome: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.fuzz.runner.CPU_WITHIN_S", 1)
    report = fuzz(Surface("x", lambda chance: given, crash, "whole"), 0, range(1))
    assert dict(report.counts) == {outcome: 1} and report.bad[0][:2] == (0, outcome)


def test_a_wrong_result_is_seen_where_a_checksum_covers_all() -> None:
    report = fuzz(Surface("x", lambda chance: 2, lambda given: given, 1, exact=True), 0, range(3))
    assert dict(report.counts) == {"wrong": 3}
