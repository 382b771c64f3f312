"""What the benchmarks of exactness compute themselves: scripts of faults, checks and tables; no run and no Ray."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs.benchmarks import exactness, faults
from jobs.benchmarks.exactness import FAULTS, Cell, check, experiment_of, keep, placement_of, recovery, run_cell, table
from jobs.benchmarks.faults import AT_STEP, Disturbed, Pace, Until
from metaray.episodes.sampler import share_of
from metaray.records.events import Event


def step(number: int, time_s: float = 0.0) -> Event:
    return Event("step", number, {}, time_s)


def note(text: str, time_s: float = 0.0) -> Event:
    return Event("note", 0, {}, time_s, text)


AGAIN = "a worker or its node is gone: starting again with 2 workers (attempt 2)"


def test_without_a_script_a_run_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "slow").touch()
    run = Disturbed(None, tmp_path / "slow")
    for event in (note("hello"), step(1), step(2)):
        run.on_event(event)
    assert (run.step, run.notes, run.recoveries, run.finished) == (2, ["hello"], [], True)
    assert (tmp_path / "slow").exists(), "only the end of a script speeds it up"


@pytest.fixture
def killed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """What was killed, without doing so; at 1000 s."""
    found: list[tuple[str, dict[str, Any]]] = []

    def kill(victim: str, **options: Any) -> bool:
        found.append((victim, options))
        return True

    monkeypatch.setattr(faults, "kill", kill)
    monkeypatch.setattr(faults.time, "time", lambda: 1000.0)
    return found


def test_a_worker_is_killed_and_its_recovery_is_timed(killed: list[Any], tmp_path: Path) -> None:
    (tmp_path / "slow").touch()
    run = Disturbed(faults.worker_killed, tmp_path / "slow")
    run.on_event(step(AT_STEP - 1, 999.0))
    assert killed == [] and run.recoveries == []
    run.on_event(step(AT_STEP, 1000.0))
    assert killed == [("worker", {"which": -1})]
    # The old group goes on for a moment; steps that it did before the new one began do not count.
    run.on_event(step(AT_STEP + 1, 1000.5))
    run.on_event(note(AGAIN, 1003.0))
    run.on_event(step(AT_STEP + 2, 1002.0))
    assert not run.is_back() and not run.finished and (tmp_path / "slow").exists()
    run.on_event(step(21, 1004.5))
    assert run.is_back() and run.finished and not (tmp_path / "slow").exists()
    run.on_event(step(22, 1005.0))
    (found,) = run.recoveries
    assert (found.what, found.acted_s, found.began_s, found.back_s) == ("worker killed", 1000.0, 1003.0, 1004.5)
    assert len(killed) == 1 and run.step == 22 and run.notes == [AGAIN]


def test_a_sampler_costs_no_new_group(killed: list[Any]) -> None:
    run = Disturbed(faults.sampler_killed)
    for number in range(1, 2 * AT_STEP):
        run.on_event(step(number))
    assert killed == [("sampler", {})] and not run.finished
    run.on_event(step(2 * AT_STEP))
    assert run.finished and [r.back_s for r in run.recoveries] == [0.0]


class Cluster:
    """Nodes that come and go."""

    def __init__(self) -> None:
        self.did: list[str] = []

    def remove_node(self, node: str, *, allow_graceful: bool) -> None:
        assert not allow_graceful
        self.did.append(f"-{node}")

    def add_node(self, *, num_cpus: int) -> None:
        self.did.append(f"+{num_cpus}")


def test_a_run_that_shrinks_and_grows_has_two_recoveries(killed: list[Any]) -> None:
    cluster = Cluster()
    run = Disturbed(faults.shrunk_and_grown(cluster, "second", 1))
    run.on_event(step(AT_STEP, 1000.0))
    assert cluster.did == ["-second"]
    run.on_event(note(AGAIN, 1002.0))
    run.on_event(step(20, 1003.0))
    assert cluster.did == ["-second", "+1"] and not run.finished
    run.on_event(step(21, 1004.0))  # still the small group
    assert not run.is_back()
    run.on_event(note("the cluster has more room: 1 -> 2 workers", 1010.0))
    run.on_event(step(22, 1011.0))
    assert run.finished
    assert [(r.began_s, r.back_s) for r in run.recoveries] == [(1002.0, 1003.0), (1010.0, 1011.0)]


def test_a_node_is_lost_and_replaced(killed: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    cluster, slept = Cluster(), list[float]()
    monkeypatch.setattr(faults.time, "sleep", slept.append)
    run = Disturbed(faults.node_lost(cluster, "second", 2))
    for event in (step(AT_STEP, 1000.0), note(AGAIN, 1005.0), step(20, 1006.0)):
        run.on_event(event)
    assert cluster.did == ["-second", "+2"] and slept == [3.0] and run.finished


def test_one_condition_at_a_time() -> None:
    """An event never takes a script over two conditions that it has not looked at."""
    seen: list[int] = []

    def script(run: Disturbed) -> Iterator[Until]:
        for _ in range(3):
            yield lambda: run.step > 0
            seen.append(run.step)

    run = Disturbed(script)
    for number in (1, 2, 3):
        assert not run.finished
        run.on_event(step(number))
    assert seen == [1, 2, 3] and run.finished


def test_nothing_to_kill() -> None:
    assert faults.processes("worker") == [] and not faults.kill("sampler")


def test_the_pace_is_slow_while_the_flag_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(faults.time, "sleep", slept.append)
    pace = Pace(str(tmp_path / "slow"), 0.25)
    pace.on_event(step(1))
    (tmp_path / "slow").touch()
    pace.on_event(step(2))
    pace.on_event(note("x"))
    (tmp_path / "slow").unlink()
    pace.on_event(step(3))
    assert slept == [0.25]


A, B = "a" * 64, "b" * 64


def test_one_digest_an_algorithm_is_right() -> None:
    cells = [Cell("maml", workers, fault, 0, A) for workers in (0, 2) for fault in ("none", "worker")]
    assert check([*cells, Cell("maml", 0, "none", 1, B), Cell("protonet", 0, "none", 0, A)]) == []


def test_digests_that_differ_or_agree_where_they_should_not() -> None:
    cells = [Cell("maml", 0, "none", 0, A), Cell("maml", 2, "worker", 0, B), Cell("fomaml", 0, "none", 0, A)]
    assert check(cells) == ["maml, seed 0: 2 different digests"]
    assert check([Cell("maml", 0, "none", 0, A), Cell("maml", 0, "none", 1, A)]) == [
        "maml: seed 0 gives the digest of another seed",
        "maml: seed 1 gives the digest of another seed",
    ]


def test_the_table_has_the_faults_in_order_and_gaps() -> None:
    cells = [
        Cell("maml", 2, "worker", 0, A),
        Cell("maml", 2, "none", 0, A),
        Cell("maml", 0, "none", 0, A),
        Cell("maml", 0, "none", 1, B),
        Cell("anil", 3, "worker", 0, B),
    ]
    assert table(cells).splitlines() == [
        "| algorithm | seed | workers | undisturbed | worker killed |",
        "|---|---|---|---|---|",
        "| anil | 0 | 3 |  | `bbbbbbbbbbbb` |",
        "| maml | 0 | 0 | `aaaaaaaaaaaa` |  |",
        "| maml | 0 | 2 | `aaaaaaaaaaaa` | `aaaaaaaaaaaa` |",
        "| maml | 1 | 0 | `bbbbbbbbbbbb` |  |",
    ]


def test_recoveries_are_summed_up_by_what_happened() -> None:
    cells = [
        Cell("maml", 0, "driver", 0, A, (("driver killed", 7.0, None),)),
        Cell("maml", 2, "worker", 0, A, (("worker killed", 4.0, 3.0),)),
        Cell("anil", 2, "worker", 0, A, (("worker killed", 5.0, 3.5),)),
        Cell("anil", 3, "worker", 0, A, (("worker killed", 9.0, 8.0),)),
        Cell("anil", 3, "none", 0, A),
    ]
    _, _, *rows = recovery(cells).splitlines()
    assert rows == [
        "| worker killed | 3 | 5.0 (4.0 to 9.0) | 3.5 |",
        "| driver killed | 1 | 7.0 (7.0 to 7.0) | - |",
    ]


PAGE = """# Title
<!-- digests -->
old
<!-- /digests -->
between \\1
<!-- recovery -->

<!-- /recovery -->
end
"""


def test_what_is_kept_is_merged_and_only_the_tables_change(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    first = [Cell("maml", 2, "worker", 0, A, (("worker killed", 4.0, 3.0),), "c1"), Cell("maml", 0, "none", 0, A)]
    assert keep(page, first) == sorted(first, key=lambda cell: cell.workers)
    again = Cell("maml", 2, "worker", 0, B, (("worker killed", 6.0, 5.0),), "c2")
    other = Cell("anil", 0, "none", 0, B)
    found = keep(page, [again, other])
    assert [(c.algorithm, c.workers, c.sha256, c.commit) for c in found] == [
        ("anil", 0, B, ""),
        ("maml", 0, A, ""),
        ("maml", 2, B, "c2"),  # the newer one has replaced it
    ]
    text = page.read_text()
    assert text.startswith("# Title\n<!-- digests -->\n\n| algorithm") and text.endswith("<!-- /recovery -->\nend\n")
    assert "old" not in text and "\nbetween \\1\n" in text and table(found) in text and recovery(found) in text
    assert len(json.loads((tmp_path / "page.json").read_text())["cells"]) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["page.json", "page.md"]
    # Writing the same again changes nothing.
    assert check(keep(page, [])) == ["maml, seed 0: 2 different digests"] and page.read_text() == text


@pytest.mark.parametrize(
    ("workers", "fault"), [(0, "sampler"), (0, "worker"), (0, "node"), (0, "elastic"), (1, "node"), (3, "elastic")]
)
def test_cells_without_a_meaning(workers: int, fault: str) -> None:
    assert run_cell("maml", workers, fault, 0) is None


def test_a_cell_takes_its_times_from_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def on_ray(experiment: object, placement: Any, script: object) -> tuple[str, Disturbed]:
        asked.append(str(placement.workers))
        run = Disturbed()
        run.recoveries = [faults.Recovery("worker killed", 10.0, 12.0, 13.5), faults.Recovery("no end", 20.0)]
        return A, run

    monkeypatch.setattr(exactness, "on_ray", on_ray)
    assert run_cell("maml", 3, "worker", 5) == Cell("maml", 3, "worker", 5, A, (("worker killed", 3.5, 2.0),))
    assert asked == ["3"]


def test_the_experiment_divides_among_no_number_of_workers() -> None:
    experiment = experiment_of("maml", 7)
    assert experiment.seed == 7 and experiment != experiment_of("maml", 8)
    assert experiment.name == "exactness-maml" and experiment.num_steps > 2 * AT_STEP
    for workers in (2, 3, 4):
        shares = [share_of(0, experiment.meta_batch_size, rank, workers, chunk_size=1) for rank in range(workers)]
        assert len({len(share) for share in shares}) > 1 and sum(map(len, shares)) == experiment.meta_batch_size
    assert set(exactness.TITLES) == set(FAULTS) and str(placement_of("1:2", 0.5).workers) == "1 to 2"
