"""What an experiment amounts to."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from metaray.algorithms import ProtoNet
from metaray.episodes.episode import EpisodeSpec
from metaray.episodes.sampler import sample_episode
from metaray.experiment.experiment import Evaluation, Experiment
from metaray.models import Conv4
from metaray.records.events import Fanout
from metaray.records.storage import Storage
from metaray.training.arithmetic import arithmetic_of
from metaray.training.room import COPIES
from tests.training.whole_runs import train_in_process

MakeExperiment = Callable[..., Experiment]


def test_counts_are_those_of_a_run(make_experiment: MakeExperiment, tmp_path: Path) -> None:
    experiment = make_experiment()
    found = arithmetic_of(experiment)
    assert found.train_episodes == experiment.num_steps * experiment.meta_batch_size
    assert (found.val_episodes, found.test_episodes) == (3 * 6, 8), "every 2 of 6 steps"
    assert sum(found.parameters.values()) * 4 == found.parameters_bytes
    assert found.optimizer_bytes > 2 * found.parameters_bytes, "Adam keeps two moments, and steps"
    assert found.classes["meta-train"] == experiment.source.num_classes("meta-train") > 0
    assert found.tasks["meta-test"] == experiment.source.count_tasks(
        "meta-test", EpisodeSpec(ways=3, shots=1, queries=2)
    )
    assert found.episode_s > 0
    train_in_process(experiment, Storage(str(tmp_path)), Fanout([]))
    written = max(path.stat().st_size for path in tmp_path.rglob("state.safetensors"))
    assert abs(written - found.checkpoint_bytes) < found.parameters_bytes + 10_000


def test_memory_grows_with_inner_steps_and_chunks(make_waves: MakeExperiment) -> None:
    one = arithmetic_of(make_waves(chunk_size=1))
    longer = make_waves(chunk_size=1)
    longer = longer.model_copy(update={"algorithm": longer.algorithm.model_copy(update={"inner_steps": 8})})
    assert arithmetic_of(longer).episode_bytes > 2 * one.episode_bytes
    together = arithmetic_of(make_waves(chunk_size=2))
    assert together.chunk_sizes == {"cpu": 2, "cuda": 2}
    assert one.worker_bytes("cpu") == COPIES * one.parameters_bytes + one.optimizer_bytes + one.episode_bytes
    assert together.worker_bytes("cpu") > one.worker_bytes("cpu")
    assert not any(one.classes.values())


def test_of_unequal_episodes_the_largest_counts(make_experiment: MakeExperiment) -> None:
    """One of the first 32 is as large as can be; the first is not."""
    model, algorithm = Conv4(channels=4), ProtoNet()

    def make(**counts: Any) -> Experiment:
        return make_experiment(model=model, algorithm=algorithm, episodes=EpisodeSpec(**counts), meta_batch_size=8)

    ranged = make(ways=(2, 6), shots=(1, 3), queries=2)
    ranges = arithmetic_of(ranged)
    most = arithmetic_of(make(ways=6, shots=3, queries=2))
    small = arithmetic_of(make(ways=2, shots=1, queries=2))
    assert ranges.episode_bytes == most.episode_bytes > 2 * small.episode_bytes
    spec = ranged.episodes
    first = sample_episode(ranged.source, spec, "meta-train", ranged.seed, 0)
    assert len(first.task.support.y) < spec.most_support


def test_judging_that_is_seldom(make_waves: MakeExperiment) -> None:
    for every, steps, times in ((0, 6, 1), (4, 6, 2), (6, 6, 1), (500, 6, 1), (2, 0, 1)):
        evaluation = Evaluation(every=every, val_episodes=10, test_episodes=2)
        assert arithmetic_of(make_waves(num_steps=steps, evaluation=evaluation)).val_episodes == 10 * times


def test_the_same_bits_come_out_of_a_run_after_it(make_experiment: MakeExperiment, tmp_path: Path) -> None:
    experiment = make_experiment(num_steps=2, evaluation=Evaluation(every=0, val_episodes=2, test_episodes=2))
    before = train_in_process(experiment, Storage(str(tmp_path / "a")), Fanout([])).parameters_sha256
    arithmetic_of(experiment)
    assert train_in_process(experiment, Storage(str(tmp_path / "b")), Fanout([])).parameters_sha256 == before
