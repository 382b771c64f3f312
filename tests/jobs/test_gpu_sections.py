"""The GPU checks, small, on a CPU: every section runs to its end, and says so where something is wrong."""

import json
import math
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._C._autograd import DeviceType

from jobs.benchmarks.gpu import bits, ceilings, conformance, costs, execution, experiments, kernels
from jobs.benchmarks.gpu.__main__ import main
from jobs.benchmarks.gpu.record import Record, Row
from jobs.benchmarks.gpu.section import Section, Setting, Skipped, Wrong, run_section
from jobs.benchmarks.gpu.sections import load
from jobs.benchmarks.gpu.table import tables
from jobs.benchmarks.gpu.targets import targets
from jobs.benchmarks.overhead import arrivals
from metaray.algorithms import ALGORITHMS, MAML
from metaray.config import replace
from metaray.experiment.experiment import Experiment
from metaray.models import MLP

CPU = torch.device("cpu")


@pytest.fixture
def setting(tmp_path: Path) -> Setting:
    return Setting(CPU, tmp_path, small=True, train_s=0.3)


@pytest.fixture
def record(tmp_path: Path) -> Record:
    return Record.new(tmp_path / "record.json", {"device": "none"})


def ran(section: Section, setting: Setting, record: Record, **options: Any) -> list[Row]:
    run_section(section, setting, record, **options)
    assert Record(record.path).rows == record.rows, "what is on disk is what was found"
    return record.of(section.name)


def of(name: str, setting: Setting, record: Record) -> dict[str, Row]:
    """The rows of a section by case, none of which is wrong."""
    rows = ran(load(name), setting, record)
    assert record.is_good and rows, [row for row in rows if row.status not in ("holds", "skipped")]
    return {row.case: row for row in rows}


def test_bits_small(setting: Setting, record: Record) -> None:
    rows = of("bits", setting, record)
    assert rows["MAML, Conv4, float32: 1, 2 and 4 workers"].values["compared"] == 8
    assert {row.values["digests"] for row in rows.values()} == {1}
    assert sum("twice" in case for case in rows) == len(ALGORITHMS) - 1


def test_costs_small(setting: Setting, record: Record) -> None:
    rows = of("costs", setting, record)
    assert {"matrix product, float32", "copy", "Conv4, R2D2, by hand, float32"} <= rows.keys()
    by_hand = [row.values for case, row in rows.items() if "by hand" in case]
    assert len(by_hand) == len(costs.ALGORITHMS) and all(float(str(v["loss off by"])) < 1e-5 for v in by_hand)
    for case, row in rows.items():
        if "matrix" not in case and case != "copy":
            took_ms, bound_ms = (float(str(row.values[key])) for key in ("ms a step", "bound ms"))
            assert 0 < bound_ms < took_ms and int(str(row.values["timings"])) >= 2
            assert row.values["share of the bound"] == pytest.approx(bound_ms / took_ms)


def test_executions_small(setting: Setting, record: Record) -> None:
    rows = of("execution", setting, record)
    timed = {case: row.values for case, row in rows.items() if "most_workers" in case and row.status == "holds"}
    assert len(timed) >= 6 and all(float(str(values["first s"])) > 0 for values in timed.values())
    compared = [
        float(str(values["loss off by"]))
        for case, values in timed.items()
        if "float32" in case and "inductive" not in case
    ]
    assert len(compared) >= 4 and max(compared) < 1e-5
    assert rows[f"{execution.ONE}: graph, float32, most_workers=1"].why == "CUDA graphs need a GPU"
    rates = [
        float(str(rows[f"sampling in one process, {what}"].values["episodes/s"]))
        for what in ("whole", "rows of the store")
    ]
    assert min(rates) > 0
    found = {target.what: target for target in targets(record)}
    one = found[f"{execution.ONE}, float32: task by task / metaray"]
    assert one.found is not None and one.found > 0 and one.by.endswith("ms (batched)")
    assert found["a worker on Ray / the bare step"].cells[2] == "not measured"
    assert f"| {one.what} | >= 35 |" in tables(record)


def test_kernels_small(setting: Setting, record: Record) -> None:
    counts = [int(str(row.values["operations"])) for row in of("kernels", setting, record).values()]
    assert len(counts) == 2 and min(counts) > 100


def test_training_small(setting: Setting, record: Record) -> None:
    (row,) = of("training", setting, record).values()
    assert int(str(row.values["steps"])) > 0 and str(row.values["data"]).startswith("glyphs")
    assert 0 < float(str(row.values["accuracy %"])) <= 100 and float(str(row.values["waiting %"])) < 100


def test_jax_small(setting: Setting, record: Record) -> None:
    (row,) = of("peers", setting, record).values()
    if find_spec("jax") is None:
        assert (row.status, row.why) == ("skipped", "JAX is not installed here")
    else:
        assert float(str(row.values["loss off by"])) < 1e-4


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["conformance", "bits", "execution", "costs", "kernels", "training"])
def test_on_a_gpu(name: str, setting: Setting, record: Record) -> None:
    of(name, Setting(torch.device("cuda"), setting.scratch, small=True, train_s=1.0), record)


def test_a_gradient_that_is_another_is_found(setting: Setting, monkeypatch: Any) -> None:
    true, calls = conformance.gradient, iter(range(4))

    def gradient(*arguments: Any) -> tuple[Tensor, Tensor]:
        flat, loss = true(*arguments)
        return (flat * (1 + 1e-8) if next(calls) == 1 else flat), loss

    monkeypatch.setattr(conformance, "gradient", gradient)
    (case,) = (c for c in load("conformance").cases(setting) if c.name == "maml, MLP, transductive, single")
    with pytest.raises(Wrong, match="^beyond its bound: float64$"):
        case.run()


@pytest.mark.parametrize(
    ("kind", "changes", "bad"),
    [
        ("maml", {}, []),
        ("maml", {"float32": 0.05}, ["float32"]),
        ("reptile", {"float32": 0.05}, []),
        ("maml", {"float64": math.nan}, ["float64"]),
        ("maml", {"least bfloat16 cosine": math.nan}, ["bfloat16 cosine"]),
        ("maml", {"least bfloat16 cosine": 0.1, "bfloat16 loss": 0.5}, ["bfloat16 loss", "bfloat16 cosine"]),
        ("imaml", {"least bfloat16 cosine": -0.1}, []),
    ],
)
def test_bounds(kind: str, changes: dict[str, float], bad: list[str]) -> None:
    values = {"float64": 1e-12, "float32": 1e-6, "bfloat16 loss": 0.01, "least bfloat16 cosine": 0.99}
    assert conformance.beyond(kind, {**values, **changes}) == bad


@pytest.mark.parametrize(
    ("digests", "message"),
    [(["a", "a", "b", "a", "c"], "2 workers, rank 0: b"), (["a", "a", "a", "a", "a"], "another seed gives the same")],
)
def test_bits_that_differ_or_do_not(setting: Setting, monkeypatch: Any, digests: list[str], message: str) -> None:
    given = iter(digests)
    monkeypatch.setattr(bits, "trained", lambda _, __, world_size: [next(given) for _ in range(world_size)])
    experiment = experiments.experiment_of(setting, experiments.networks(setting)["Conv4"], bits.MAML_BITS)
    with pytest.raises(Wrong, match=message):
        bits.shared_out(experiment, (1, 2), setting)


def test_a_loop_by_hand_with_another_loss_is_not_timed_against(setting: Setting, monkeypatch: Any) -> None:
    monkeypatch.setattr(costs, "plain_steps", lambda *_: iter([5.0] * 99))
    kind = costs.Kind("Conv4", "ProtoNet", "by hand", "float32")
    with pytest.raises(Wrong, match="metaray's first loss is .*, that by hand 5"):
        costs.cost(kind, {}, setting)


def test_a_loss_that_is_no_number_is_not_timed(setting: Setting) -> None:
    with pytest.raises(Wrong, match="the loss is nan"):
        costs.timed(iter([1.0, math.nan]), setting)


def test_each_way_of_computing_is_had_or_said_to_be_missing(setting: Setting, monkeypatch: Any) -> None:
    of_one = {name: execution.Kind(execution.ONE, name, 2) for name in execution.EXECUTIONS}
    gpu = Setting(torch.device("cuda"), setting.scratch, small=True)
    if "execution" not in Experiment.model_fields:
        assert execution.experiment_for(of_one["each"], gpu).chunk_size == 1
        batched = execution.experiment_for(of_one["batched"], gpu)
        assert (batched.chunk_size, batched.most_workers) == (None, 2)
        for name in ("compiled", "graph"):
            with pytest.raises(Skipped, match="this metaray has no field `execution`"):
                execution.experiment_for(of_one[name], gpu)
    else:
        for name, kind in of_one.items():
            assert dict(execution.experiment_for(kind, gpu))["execution"] == name
    assert execution.experiment_for(execution.Kind(execution.PROTONET, "by hand"), gpu).episodes.ways == 20


def test_executions_in_order() -> None:
    kinds = execution.kinds()
    assert len(kinds) == len(set(kinds)) and {kind.execution for kind in kinds} == {*execution.EXECUTIONS, "by hand"}
    assert kinds[:4] == [
        execution.Kind(execution.ONE, "by hand"),
        execution.Kind(execution.FIVE, "by hand"),
        execution.Kind(execution.ONE, "graph"),
        execution.Kind(execution.FIVE, "graph"),
    ]


def test_another_first_loss_is_wrong(setting: Setting, monkeypatch: Any) -> None:
    monkeypatch.setattr(execution, "_loss_by_hand", lambda workload, setting: 5.0)
    with pytest.raises(Wrong, match="the first loss is .*, that by hand 5"):
        execution.cost(execution.Kind(execution.ONE, "batched"), {}, setting)


def test_steps_in_a_row_are_waited_for_together(setting: Setting, monkeypatch: Any) -> None:
    did: list[str] = []
    monkeypatch.setattr(Setting, "synchronize", lambda _: did.append("wait"))

    def steps() -> Iterator[float]:
        while True:
            did.append("step")
            yield 1.0

    assert 0 < execution.in_a_row(steps(), setting) < 0.1
    assert did.count("wait") == 2 * (1 + execution.ROUNDS) and did[:5] == ["wait", "step", "step", "wait", "wait"]
    with pytest.raises(Wrong, match="the loss is nan"):
        execution.in_a_row(iter([math.nan]), setting)


def test_the_most_important_costs_come_first() -> None:
    kinds = costs.kinds()
    assert len(kinds) == len(set(kinds)) == 2 * 5 * (3 * 3 + 1)
    assert kinds[0] == costs.Kind("Conv4", "MAML, 1 step", "quarter", "float32")
    assert {kind.algorithm for kind in kinds[:28]} == {"MAML, 1 step", "MAML, 5 steps"}
    network = experiments.networks(Setting(CPU, Path()))["Conv4"]
    assert [costs.chunk_size_of(kind._replace(chunk=c), network) for kind in kinds[:1] for c in costs.CHUNKS] == [
        32,
        8,
        1,
    ]


def test_flops_are_counted(setting: Setting) -> None:
    """Of a linear model: the query forward, and backward to the weights; with an inner step, twice the support too."""
    network = experiments.networks(setting)["Conv4"]._replace(model=MLP(hidden=()))
    found = []
    for inner_steps in (0, 1):
        algorithm = MAML(inner_steps=inner_steps, batch_norm="transductive")
        experiment = experiments.experiment_of(setting, network, algorithm)
        found.append(ceilings.flops_of_an_episode(experiment, setting, arrivals(experiment, 1)[0].batch))
    product, queries, shots = 2 * 16 * 16 * 5, 15, 5
    assert found[0] == 2 * queries * product and found[1] - found[0] >= 2 * shots * product


def test_kernels_are_counted_and_the_costliest_is_named() -> None:
    def event(name: str, took_us: float, where: Any = DeviceType.CUDA) -> Any:
        return SimpleNamespace(name=name, device_type=where, time_range=SimpleNamespace(elapsed_us=lambda: took_us))

    events = [event("conv", 3.0), event("add", 4.0), event("conv", 5.0), event("Memcpy HtoD", 99.0)]
    events.append(event("cudaLaunchKernel", 99.0, DeviceType.CPU))
    assert kernels.launched(events, DeviceType.CUDA) == (3, 12.0, "conv", 8 / 12)
    assert kernels.launched([], DeviceType.CUDA) == (0, 0.0, "", 0.0)


def test_on_a_gpu_memory_is_counted_and_every_step_is_waited_for(setting: Setting, monkeypatch: Any) -> None:
    did: list[str] = []
    monkeypatch.setattr(Setting, "on_gpu", True)
    for name in ("synchronize", "empty_cache", "reset_peak_memory_stats"):
        monkeypatch.setattr(torch.cuda, name, lambda *_, name=name: did.append(name))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _: 3 << 30)
    kind = costs.Kind("Conv4", "ProtoNet", "whole", "bfloat16")
    values = costs.cost(kind, {"bfloat16": 1e15}, setting)
    assert values["peak GiB"] == 3.0 and did[:2] == ["empty_cache", "reset_peak_memory_stats"]
    assert did.count("synchronize") >= 2 * (2 + int(str(values["timings"])))


@pytest.mark.slow
@pytest.mark.ray
def test_on_ray_what_is_killed_leaves_no_trace(tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(["--device", "cpu", "--small", "--out", str(out), "--only", "ray", "--budget-s", "550"]) == 0
    rows = {row.case: row for row in Record(out / "record.json").rows}
    disturbed = rows["on Ray: a sampler, then the worker killed"]
    assert disturbed.status == "holds" and float(str(disturbed.values["worker back after s"])) > 0
    assert disturbed.values["sha256"] == rows["in process"].values["sha256"]
    assert rows["two workers on one device, nccl"].why == "NCCL joins GPUs alone"
    assert rows["two workers on one device, gloo"].status == "holds"
    assert json.loads((out / "record.json").read_text())["machine"]["ray"]


def test_another_seed_is_another_experiment(setting: Setting) -> None:
    experiment = experiments.experiment_of(setting, experiments.networks(setting)["Conv4"], bits.MAML_BITS, num_steps=1)
    assert bits.trained(experiment, setting, 1) != bits.trained(replace(experiment, seed=1), setting, 1)
