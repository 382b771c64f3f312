"""The benchmarks on a CPU, tiny: the peers' protocol, who is refused, records that are gone on with, and the page."""

import argparse
import io
import json
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO

import numpy as np
import pytest
import torch
from torch import Tensor

from jobs.benchmarks import start_up
from jobs.benchmarks.cpu import (
    at_once,
    bounds,
    contenders,
    fresh,
    kernels,
    memories,
    meta_steps,
    page,
    runs,
    sampled,
    turns,
    whole_runs,
)
from jobs.benchmarks.cpu.cases import CASES, METHODS, TINY, experiment_of
from jobs.benchmarks.cpu.contenders import BY_HAND, BY_HAND_OURS, PEERS, REFERENCE, Differs
from jobs.benchmarks.cpu.runs import Job, Records, Setting
from jobs.benchmarks.cpu.targets import TARGETS, key_of
from jobs.benchmarks.gpu.section import Skipped
from jobs.benchmarks.overhead import arrivals
from jobs.benchmarks.peers import client, install
from jobs.benchmarks.peers.learner import (
    Backward,
    Conv4,
    Episode,
    Outcome,
    Refused,
    TorchLearner,
    by_backward,
    by_gradient,
    cross_entropy,
)
from jobs.benchmarks.peers.serve import Server, serve
from jobs.benchmarks.peers.wire import Arrays, Method, receive, send

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = ROOT / ".venv-peers"


@pytest.fixture
def setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Setting]:
    """A turn is one step, or hardly any time."""
    monkeypatch.setattr(contenders, "TURN_S", 0.0)
    monkeypatch.setattr(sampled, "SHARE_S", 0.01)
    with client.Peers(tmp_path / "none") as peers:
        yield Setting(tmp_path, peers, turns=1, seconds=0.0, size=TINY, say=lambda _: None)


def test_messages_arrive_as_they_were_sent() -> None:
    pipe = io.BytesIO()
    arrays: Arrays = {"weight/a.b": np.arange(6, dtype=np.float32).reshape(2, 3), "y": np.array([1, 2])}
    send(pipe, {"do": "build", "steps": 3}, arrays)
    send(pipe, {"do": "about"})
    pipe.seek(0)
    words, found = receive(pipe)
    assert words == {"do": "build", "steps": 3} and found.keys() == arrays.keys()
    assert all(
        np.array_equal(found[name], array) and found[name].dtype == array.dtype for name, array in arrays.items()
    )
    assert receive(pipe) == ({"do": "about"}, {})
    with pytest.raises(EOFError, match="the pipe was closed: 0 of 16 bytes came"):
        receive(pipe)
    with pytest.raises(EOFError, match="closed: 20 of"):
        receive(io.BytesIO(pipe.getvalue()[:36]))


class Counting:
    """A learner that only counts its steps."""

    steps = 0

    def outcome(self) -> Outcome:
        return Outcome(0.5, 2.0)

    def step(self) -> None:
        self.steps += 1


def test_a_server_answers_refuses_and_tells_what_failed() -> None:
    learner = Counting()

    def build(method: Method, arrays: Arrays) -> Counting:
        if method.kind == "r2d2":
            raise Refused("no ridge here")
        assert arrays["y"].tolist() == [1]
        return learner

    library = SimpleNamespace(PACKAGES=("torch",), build=build, taskset=lambda arrays, ways, per_class: lambda: None)
    (ours, theirs), (answers_out, answers_in) = pipe(), pipe()
    thread = threading.Thread(target=serve, args=(Server(library), ours, answers_in))
    thread.start()

    def ask(arrays: Arrays | None = None, **words: Any) -> dict[str, Any]:
        send(theirs, words, arrays)
        return receive(answers_out).words

    arrays: Arrays = {"y": np.array([1])}
    assert ask(do="about") == {"versions": {"torch": torch.__version__}}
    assert "nothing is built" in ask(do="turn", steps=1)["failed"]
    assert ask(arrays, do="build", method=Method("r2d2", 5)._asdict()) == {"refused": "no ridge here"}
    built = ask(arrays, do="build", method=Method("maml", 5)._asdict())
    assert (built["loss"], built["gradient_norm"]) == (0.5, 2.0)
    assert ask(do="turn", steps=3)["cpu_s"] >= 0 and learner.steps == 3
    ask(do="taskset", ways=5, per_class=16)
    assert ask(do="sample", seconds=0.001)["cpu_us_an_episode"] > 0
    held = ask(do="memory")
    assert held["peak_bytes"] >= held["bytes"] > 2**20
    theirs.close()
    thread.join(10)
    assert not thread.is_alive()
    for stream in (ours, answers_out, answers_in):
        stream.close()


def pipe() -> tuple[BinaryIO, BinaryIO]:
    out, into = os.pipe()
    return os.fdopen(out, "rb"), os.fdopen(into, "wb")


def test_a_peer_whose_process_ends_has_failed() -> None:
    peer = client.Peer("nothing_of_that_name", Path(sys.executable))
    with peer, pytest.raises(client.Failed, match=r"nothing_of_that_name: its process ended"):
        peer.ask("about")


def test_a_peer_that_takes_too_long_is_killed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sleeper = tmp_path / "sleeper"
    sleeper.write_text(f"#!{sys.executable}\nimport time\ntime.sleep(60)\n")
    sleeper.chmod(0o755)
    with (
        client.Peer("slow", sleeper, timeout_s=0.2) as peer,
        pytest.raises(client.Failed, match="no answer within 0 s"),
    ):
        peer.ask("about")


def maml(network: Conv4, method: Method) -> Backward:
    """As one would write it, for any order."""
    second = method.kind == "maml"

    def adapted(episode: Episode) -> tuple[Tensor, list[Tensor]]:
        theta: dict[str, Tensor] = dict(network.named_parameters())
        for _ in range(method.steps):
            loss = cross_entropy(torch.func.functional_call(network, theta, (episode.support_x,)), episode.support_y)
            slopes = torch.autograd.grad(loss, list(theta.values()), create_graph=second)
            theta = {n: t - method.rate * g for (n, t), g in zip(theta.items(), slopes, strict=True)}
        if not second:
            theta = {n: t.detach().requires_grad_() for n, t in theta.items()}
        logits = torch.func.functional_call(network, theta, (episode.query_x,))
        return cross_entropy(logits, episode.query_y), list(theta.values())

    return by_backward(lambda episode: adapted(episode)[0]) if second else by_gradient(adapted, network)


@pytest.mark.parametrize("number", [0, 1, 4])
def test_a_peer_in_torch_finds_what_metaray_and_the_loop_by_hand_find(number: int, setting: Setting) -> None:
    case = METHODS[number]
    experiment = experiment_of(case, setting.scratch, TINY)
    given = arrivals(experiment, 1)
    learner = TorchLearner(maml, case.method, contenders.handed_over(experiment, given))
    reference = next(contenders.ours(experiment, given))
    contenders.require_equal("torch", learner.outcome(), reference, "float32")
    contenders.require_equal(BY_HAND, next(contenders.by_hand(experiment, given)), reference, "float32")
    before = learner.outcome()
    learner.step()
    assert learner.outcome() != before


@pytest.mark.parametrize("outcome", [Outcome(1.01, 2.0), Outcome(1.0, 2.1), Outcome(float("nan"), 2.0)])
def test_who_finds_something_else_is_not_timed(outcome: Outcome) -> None:
    contenders.require_equal("other", Outcome(1.0005, 2.01), Outcome(1.0, 2.0), "float32")
    with pytest.raises(Differs, match="other computes something else: (loss|gradient norm)"):
        contenders.require_equal("other", outcome, Outcome(1.0, 2.0), "float32")


def test_a_contender_that_differs_is_left_out(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contenders, "by_hand", lambda *_: iter([Outcome(7.0, 1.0)] * 9))
    found = meta_steps.measured(CASES[0], setting)
    assert BY_HAND not in found["ms_an_episode"] and BY_HAND_OURS in found["ms_an_episode"]
    assert found["absent"][BY_HAND].startswith("by hand computes something else: loss 7, metaray, each ")


def test_a_contender_that_breaks_is_left_out_and_the_reference_may_not(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Iterator[Outcome]:
        raise RuntimeError("out of luck")

    monkeypatch.setattr(contenders, "by_hand", broken)
    assert meta_steps.measured(CASES[0], setting)["absent"][BY_HAND] == "RuntimeError: out of luck"
    monkeypatch.setattr(contenders, "ours", broken)
    with pytest.raises(RuntimeError, match="out of luck"):
        meta_steps.measured(CASES[0], setting)


@pytest.mark.parametrize("case", CASES[::2], ids=lambda case: case.name)
def test_a_meta_step_small(case: Any, setting: Setting) -> None:
    found = meta_steps.measured(case, setting)
    assert {REFERENCE, f"{REFERENCE}, channels_last", BY_HAND, BY_HAND_OURS} <= found["ms_an_episode"].keys()
    assert all(len(times) == 1 and times[0] > 0 for times in found["ms_an_episode"].values())
    assert set(found["absent"]) == set(PEERS) and found["absent"]["higher"] == client.NONE
    assert found["gflop_an_episode"] > 0 and len(found["gemm_gflop_per_s"]) == 1


def test_bfloat16_is_skipped_without_instructions(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meta_steps, "without_instructions", lambda: "no instructions")
    (case,) = (case for case in CASES if case.title == "R2D2, 5-way 5-shot, bfloat16")
    with pytest.raises(Skipped, match="no instructions"):
        meta_steps.measured(case, setting)


@pytest.fixture(scope="module")
def installed() -> Iterator[client.Peers]:
    """Those of the checkout's own environment."""
    if not (ENVIRONMENT / install.NOTE).exists():
        pytest.skip("no .venv-peers: `make peers` makes it")
    with client.Peers(ENVIRONMENT) as peers:
        yield peers


@pytest.mark.parametrize("number", range(len(METHODS)))
def test_the_peers_find_the_same(number: int, setting: Setting, installed: client.Peers) -> None:
    case = METHODS[number]
    experiment = experiment_of(case, setting.scratch, TINY)
    arrays = contenders.handed_over(experiment, arrivals(experiment, 1))
    reference = next(contenders.ours(experiment, arrivals(experiment, 1)))
    for name in (name for name in ("learn2learn", "higher", "torchopt") if name in installed.versions):
        try:
            ready = contenders.in_peer(name, case, arrays, installed)
        except client.Refused as error:
            assert case.algorithm.kind in str(error) and case.algorithm.kind in ("protonet", "r2d2")
            continue
        contenders.require_equal(name, ready.outcome, reference, "float32")
        assert ready.steps(1) > 0


def test_learn2learn_samples(setting: Setting, installed: client.Peers) -> None:
    if "learn2learn" not in installed.versions:
        pytest.skip("no learn2learn in .venv-peers")
    found = sampled.in_process(60, setting._replace(peers=installed))
    assert found["us_an_episode"][sampled.LEARN2LEARN][0] > 0


def test_sampling_without_peers(setting: Setting) -> None:
    found = sampled.in_process(60, setting)
    assert "metaray" in found["us_an_episode"] and found["absent"] == {sampled.LEARN2LEARN: client.NONE}


def test_memory_of_a_process(setting: Setting) -> None:
    experiment_of(METHODS[1], setting.scratch, TINY)  # makes the data
    found = fresh.memory(memories.TITLE, BY_HAND, 1, setting.scratch, tiny=True)
    ours = fresh.memory(memories.TITLE, REFERENCE, 1, setting.scratch, tiny=True)
    contenders.require_equal(BY_HAND, memories.outcome_of(found), memories.outcome_of(ours), "float32")
    assert found["peak_bytes"] >= found["before_bytes"] > 0 and found["cpu_s_a_step"] > 0


@pytest.mark.slow
def test_two_processes_at_once(setting: Setting) -> None:
    """Slow: three fresh processes that import torch."""
    rates = at_once.rates(METHODS[0], setting, 1, seconds=0.2)
    assert [len(values) for values in rates.values()] == [1, 1, 1] and min(rate for (rate,) in rates.values()) > 0


def test_bounds_small(setting: Setting) -> None:
    assert all(rates[0] > 0 for rates in bounds.measured(setting)["rates"].values())


def test_layouts_of_convolutions_small(setting: Setting) -> None:
    record = {"us": kernels.measured(setting)["us"]}
    assert all(min(times[way]) > 0 for times in record["us"].values() for way in (kernels.PLAIN, *kernels.OTHERS))
    lines = page.kernel_table({key_of(kernels.SECTION, kernels.TITLE): record}).splitlines()
    assert len(lines) == 2 + len(record["us"]) and "75 images of 28 x 28, 1 channels, float32" in lines[2]


def test_turns_alternate_and_the_slow_ones_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, order = [0.0], list[str]()
    monkeypatch.setattr("jobs.benchmarks.cpu.turns.time.perf_counter", lambda: clock[0])

    def turn(name: str, seconds: float) -> turns.Turn:
        def take() -> float:
            order.append(name)
            clock[0] += seconds
            return seconds

        return take

    found = turns.alternated({"a": turn("a", 1), "b": turn("b", 1), "slow": turn("slow", 9)}, turns=50, seconds=40)
    assert order[:6] == ["a", "b", "slow", "b", "slow", "a"]
    assert found["slow"] == [9] and len(found["a"]) == len(found["b"]) == 11
    assert turns.ratios([4, 9], [2, 3, 5]) == [2, 3] and turns.quartiles([1, 2, 3]) == [1.5, 2, 2.5]
    assert turns.fastest({"a": [3, 1, 9], "b": [2, 2, 2]}) == "b"


def test_an_interrupted_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran, said = list[str](), list[str]()

    def job(name: str, error: Exception | None = None, **settings: Any) -> Job:
        def work() -> dict[str, Any]:
            ran.append(name)
            if error is not None:
                raise error
            return {"value": 1 / 3}

        return Job("part", name, work, settings)

    def go(*jobs: Job, again: bool = False) -> bool:
        ran.clear()
        return runs.run(
            jobs, Records(tmp_path, "make bench"), again=again, say=said.append, kept=lambda: said.append("kept")
        )

    with pytest.raises(KeyboardInterrupt):
        go(job("a"), job("b", KeyboardInterrupt()), job("c"))  # type: ignore[arg-type]
    assert go(job("a"), job("b"), job("c")) and ran == ["b", "c"]
    assert go(job("a", turns=3)) and ran == ["a"], "other settings"
    assert go(job("a", turns=3), again=True) and ran == ["a"]
    assert go(job("d", Skipped("not here"))) and go(job("d")) and ran == []
    assert not go(job("e", ValueError("broken")), job("f")) and ran == ["e", "f"]
    assert go(job("e")) and ran == ["e"], "what failed is tried again"
    record = json.loads((tmp_path / "part-a.json").read_text())
    assert record["found"] == {"value": 0.333333} and record["made"]["command"] == "make bench"
    assert any("ValueError: broken" in line for line in said) and said.count("kept") == 9
    monkeypatch.setattr(runs, "code_digest", lambda: "other")
    assert go(job("f")) and ran == ["f"], "other code"


def test_what_cannot_be_installed_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    def fails(_: install.Environment) -> str:
        install.ran([sys.executable, "-c", "import sys; sys.exit('no compiler')"])
        return "never"

    environment: Any = None
    found = install.installed(environment, {"broken": fails, "good": lambda _: "1.2"})
    assert found == {"versions": {"good": "1.2"}, "absent": {"broken": "no compiler"}}
    assert "broken ... cannot be had: no compiler" in capsys.readouterr().out


def record(section: str, name: str, **found: Any) -> dict[str, Any]:
    made = {"command": "bench", "commit": "c" * 40, "code": "abc", "seed": 0, "machine": {"device": "CPU"}}
    return {"section": section, "name": name, "settings": {}, "found": found, "made": made}


def test_the_page_says_what_was_reached() -> None:
    times = {REFERENCE: [100.0, 110.0], "by hand": [160.0, 165.0], "higher": [150.0, 154.0], BY_HAND_OURS: [9.0, 9.0]}
    first = dict.fromkeys(times, 1.0)
    maml_1 = record(
        meta_steps.SECTION,
        METHODS[0].title,
        ms_an_episode=times,
        first_step_s=first,
        absent={"jax": "x\nno JAX"},
        gemm_gflop_per_s=[100.0, 100.0],
        gflop_an_episode=5.0,
    )
    held = {name: {"before_bytes": 100 << 20, "cpu_s_a_step": 1.0} for name in (REFERENCE, BY_HAND)}
    held[REFERENCE]["peak_bytes"], held[BY_HAND]["peak_bytes"] = 160 << 20, 200 << 20
    rates, bound = {"1": [10.0, 10.0], "2": [18.0, 18.0]}, {"1": [5.0], "2": [9.5]}
    workers = record("workers", "2 workers against 1", episodes_per_s=rates, bound_episodes_per_s=bound)
    skipped = {**record("sampling", "in one process"), "skipped": "no reason"}
    del skipped["found"]
    limit = {"2 Ray workers over 1, episodes/s": "memory"}
    text = page.page([maml_1, record("memory", memories.TITLE, held=held), workers, skipped], limit)
    lines = text.splitlines()
    assert "| MAML pooled, 1 step, fastest peer, float32 | 0.95-1.1 | >= 1.3 | 1.45 (1.42-1.48) | yes | - |" in lines
    assert "| peak memory of 5 steps over the loop by hand | 1.0 | <= 0.7 | 0.60 | yes | - |" in lines
    assert "| 2 Ray workers over 1, episodes/s | - | >= 1.85 | 1.80 | no | memory |" in lines
    assert "| MAML pooled, 5 steps, fastest peer, float32 | 1.0-1.1 | >= 1.25 | - | not measured | - |" in lines
    assert "share of the float32 GEMM rate, pooled MAML 1 step | 0.44 | >= 0.6 | 0.48" in text
    assert f"- jax: no JAX ({METHODS[0].title})" in lines and "**1.45 (1.42-1.48)**" in text
    assert "- skipped: sampling: in one process: no reason" in lines


def test_the_page_of_what_start_up_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    ran = start_up.Ran("first step after 2.5 s: imports 1.5, checks 0.75\n", 4.0, 3.0, 2.0)
    monkeypatch.setattr(start_up, "ran", lambda *_: ran)
    options = argparse.Namespace(repeats=2, workers=[0, 2], against=None)
    found = {"spreads": whole_runs.of_one_checkout(start_up.measured(options))}
    assert str(start_up.HERE) not in json.dumps(found)
    records = {key_of(whole_runs.START_UP, "from command to first step"): found}
    table = page.start_up_table(records)
    assert "| first step, --workers 2 | 2.50 (2.50-2.50) | 2.00 (2.00-2.00) | imports 1.5, checks 0.75 |" in table
    assert "| registry list | 4.00 (4.00-4.00) | 3.00 (3.00-3.00) | - |" in table
    reached = {target.name: target.reached(records) for target in TARGETS}
    assert reached["s to the first step, two workers"] == [2.5] * 3
    assert reached["s of `metaray registry list`"] == [4.0] * 3


def test_limits_are_of_targets_that_exist() -> None:
    limits = ROOT / "docs" / "performance" / page.LIMITS
    assert json.loads(limits.read_text()).keys() <= {target.name for target in TARGETS}
    assert len({target.name for target in TARGETS}) == len(TARGETS)
    assert key_of("a", "b") == "a: b"


def test_the_page_is_what_the_records_make() -> None:
    docs = ROOT / "docs"
    limits = json.loads((docs / "performance" / page.LIMITS).read_text())
    assert (docs / "performance.md").read_text() == page.page(page.records_in(docs / "performance"), limits)
