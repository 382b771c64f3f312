"""Judging by several processes: the same scores, to the last bit, as by one."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from metaray.algorithms import MAML, ProtoNet
from metaray.api.judging import judging
from metaray.distributed.judging import Judging, pieces
from metaray.errors import InputError, RunFailed
from metaray.experiment.experiment import Evaluation, Experiment
from metaray.training.evaluation import Scores, evaluate_learner
from metaray.training.placement import Placement, Workers
from metaray.training.rivals import judged_untrained, untrained_of
from tests.training.test_evaluation import learner_of

MakeExperiment = Callable[..., Experiment]
# Half a CPU each: tests must not depend on how many the machine has.
TWO = Placement(workers=Workers(2, 2), cpus_per_worker=0.5, device="cpu")


def judged_by(experiment: Experiment, **changes: Any) -> Judging:
    arguments: dict[str, Any] = {"fingerprint": experiment.source.fingerprint}
    return Judging(experiment.to_json(), **arguments | changes)


@pytest.mark.parametrize(("episodes", "workers", "chunk_size"), [(1000, 2, 1), (1000, 3, 4), (7, 4, 2), (2, 8, 1)])
def test_pieces_are_whole_chunks_of_all_episodes_in_order(episodes: int, workers: int, chunk_size: int) -> None:
    found = pieces(episodes, workers, chunk_size)
    assert [index for piece in found for index in piece] == list(range(episodes))
    assert all(piece.start % chunk_size == 0 for piece in found)
    assert len(found) >= min(workers, -(-episodes // chunk_size)), "each has something to do"


@pytest.mark.parametrize("chunk_size", [None, 2])
def test_a_piece_has_the_scores_that_it_has_within_the_whole(
    chunk_size: int | None, make_experiment: MakeExperiment
) -> None:
    experiment = make_experiment(chunk_size=chunk_size)
    learner, one = learner_of(experiment), judged_by(experiment)
    plans: list[dict[str, Any]] = [{}, {"inner_steps": 0}, {"baseline": "nearest_neighbor"}]
    for plan in plans:
        if "baseline" in plan:
            rival = untrained_of(plan["baseline"], learner, experiment)
            whole = judged_untrained(rival, experiment, "meta-test", device=torch.device("cpu"))
        else:
            whole = evaluate_learner(learner, experiment, "meta-test", **plan)
        cut = pieces(8, 2, chunk_size or 1)
        parts = [one.judge(0, learner.files(), "meta-test", piece.start, piece.stop, **plan) for piece in cut]
        np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole.table)


def test_what_goes_wrong_is_told(make_experiment: MakeExperiment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.util.get_node_ip_address", lambda: "10.0.0.7")
    experiment = make_experiment()
    files = learner_of(experiment).files()
    with pytest.raises(InputError, match="node 10.0.0.7 holds other data than the driver's"):
        judged_by(experiment, fingerprint="0123").judge(0, files, "meta-test", 0, 2)

    def broken(*arguments: Any, **options: Any) -> Scores:
        raise KeyError("no such class")

    monkeypatch.setattr("metaray.distributed.judging.evaluate_learner", broken)
    with pytest.raises(RunFailed, match="judging episodes 0 to 1: KeyError: 'no such class'") as caught:
        judged_by(experiment).judge(0, files, "meta-test", 0, 2)
    assert "in broken" in caught.value.told and caught.value.tracebacks.startswith("Traceback")


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_two_workers_score_as_one_process(make_experiment: MakeExperiment) -> None:
    experiment = make_experiment(evaluation=Evaluation(every=0, test_episodes=21))
    other = make_experiment(algorithm=ProtoNet(batch_norm="transductive"))
    learners = [learner_of(experiment), learner_of(other)]
    told: list[int] = []
    with judging(learners, experiment, TWO) as there, judging(learners, experiment, Placement(device="cpu")) as here:
        plans: list[tuple[int, dict[str, Any]]] = [
            (0, {}),
            (0, {"inner_steps": 0}),
            (1, {}),
            (1, {"baseline": "nearest_neighbor"}),
        ]
        for which, plan in plans:
            found = there(which, "meta-test", progress=told.append, **plan)
            np.testing.assert_array_equal(found.table, here(which, "meta-test", **plan).table)
    assert told.count(21) == len(plans) and told[:5] == sorted(told[:5])


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_errors_of_workers_arrive_as_what_they_are(
    make_experiment: MakeExperiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = make_experiment()
    learner = learner_of(experiment)
    monkeypatch.setattr(type(experiment.source), "fingerprint", "0123456789abcdef")
    with judging([learner], experiment, TWO) as judge, pytest.raises(InputError, match="holds other data than the dr"):
        judge(0, "meta-test")
    many = Placement(workers=Workers(99, 99), device="cpu")
    with (
        pytest.raises(InputError, match="99 workers x 1 CPUs = 99 CPUs, but the cluster has"),
        judging([learner], experiment, many),
    ):
        pass


def test_a_learner_that_does_not_fit_starts_no_cluster(make_experiment: MakeExperiment) -> None:
    learner = learner_of(make_experiment(algorithm=MAML(inner_lr=0.1)))
    other = make_experiment(episodes={"ways": 4, "shots": 1, "queries": 1})
    nowhere = Placement(workers=Workers(1, 1), device="cpu", address="127.0.0.1:9")
    with (
        pytest.raises(InputError, match="the learner is 3-way, the evaluation 4-way"),
        judging([learner], other, nowhere),
    ):
        pass
