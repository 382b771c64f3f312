import csv
import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from metaray.algorithms import MAML, ProtoNet
from metaray.api.evaluate import Changes, evaluate
from metaray.data.group_table import GroupTable
from metaray.episodes.episode import EpisodeSpec
from metaray.errors import InputError
from metaray.experiment.experiment import Experiment
from metaray.experiment.overrides import override
from metaray.learners.loading import load_learner
from metaray.models import MLP
from metaray.records.estimate import estimate
from metaray.training.evaluation import Judge, evaluate_learner
from metaray.training.evaluation import evaluate as judge_episodes
from tests.training.test_evaluation import CPU, learner_of

Command = Callable[..., Any]


def test_evaluate_repeats_what_the_run_reported(trained: Any, command: Command) -> None:
    places = ("--tracking-uri", trained.uri, "--episodes", "8")
    code, out, err = command("evaluate", "models:/tiny@champion", *places)
    assert (code, err) == (0, "")
    reported = [line for line in out.splitlines() if line.startswith(("meta-test", "nearest", "protocol"))]
    assert len(reported) == 4
    assert set(reported) <= set(trained.ended.out.splitlines())
    assert re.fullmatch(r"meta-test accuracy: [01]\.\d{4} \+- \d\.\d{4} \(8 episodes\)", reported[-1])


def test_evaluate_as_json(trained: Any, command: Command) -> None:
    learner = trained.storage / "first" / "learner"
    options = ("--episodes", "6", "--part", "meta-val", "--json")
    code, out, err = command("evaluate", learner, *options)
    assert (code, err) == (0, "")
    found = json.loads(out)
    result = json.loads((trained.storage / "first" / "result.json").read_text())
    assert found["accuracy"] == result["meta_val"]
    assert found["split"] == "meta-val"
    assert found["protocol"] == result["protocol"]
    assert set(found["before_adaptation"]) == {"mean", "half_width", "episodes"}


def test_unequal_tasks_are_told_by_size(trained: Any, command: Command, tmp_path: Path) -> None:
    learner, table = trained.storage / "first" / "learner", tmp_path / "episodes.csv"
    options = ("--episodes", 12, "--shots", "1..2", "--queries", "1..3", "--table", table)
    code, out, err = command("evaluate", learner, *options)
    assert (code, err) == (0, "")
    parts = [
        line
        for line in out.splitlines()
        if re.match(r"meta-test accuracy at \d to \d (support|query) examples: ", line)
    ]
    parts += [
        line for line in out.splitlines() if re.match(r"meta-test accuracy at \d (support|query) examples: ", line)
    ]
    assert len(parts) == 5 and all("; nearest neighbour " in line for line in parts)
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert {row["support"] for row in rows} == {"3", "6"} and {row["query"] for row in rows} == {"3", "6", "9"}
    found = json.loads(command("evaluate", learner, *options[:-2], "--json").out)
    assert [part["name"] for part in found["breakdown"]["query"]] == ["3", "6", "9"]
    six = [float(row["accuracy"]) for row in rows if row["query"] == "6"]
    assert found["breakdown"]["query"][1]["scores"]["accuracy"] == estimate(six)._asdict()
    assert found["baselines"]["nearest_neighbor"]["score"] == found["nearest_neighbor"]
    assert found["baselines"]["nearest_neighbor"]["gain"]["episodes"] == 12


def test_a_table_that_cannot_be_written_is_refused_before_anything_is_judged(trained: Any, command: Command) -> None:
    code, out, err = command("evaluate", "models:/none/1", "--table", trained.storage)
    assert (code, out) == (2, "") and err.startswith("error: --table ") and "is a folder; name a file" in err


def test_another_protocol(trained: Any) -> None:
    """What is printed is what was judged."""
    learner = str(trained.storage / "first" / "learner")
    settings = ["episodes.queries=5", "evaluation.inner_steps=3"]
    judged = evaluate(learner, episodes=2, part="meta-test", settings=settings)
    assert judged.protocol == "3-way 1-shot, 5 queries a class, transductive batch norm, 3 inner steps"
    assert (judged.quality, judged.score.episodes) == ("accuracy", 2)
    loaded = load_learner(Path(learner))
    experiment = override(Experiment.parse(loaded.provenance["experiment"], where="it"), settings)
    by_hand = evaluate_learner(loaded, experiment, "meta-test", inner_steps=3)
    assert judged.score == estimate(by_hand.score[:2])


def test_other_shots_and_queries(trained: Any, command: Command) -> None:
    learner = trained.storage / "first" / "learner"
    code, out, _ = command("evaluate", learner, "--episodes", 4, "--shots", 3, "--queries", 4)
    assert code == 0 and out.startswith("protocol: 3-way 3-shot, 4 queries a class, transductive batch norm\n")
    settings = ("--set", "evaluation.episodes.shots=3", "--set", "evaluation.episodes.queries=4")
    whole = ("--set", 'evaluation.episodes={"ways":3,"shots":1,"queries":1}')
    assert command("evaluate", learner, "--episodes", 4, *whole, *settings).out == out


def test_ways_of_a_learner_that_is_fixed_to_its_own_and_of_one_that_is_not(
    trained: Any, make_experiment: Callable[..., Experiment], tmp_path: Path, command: Command
) -> None:
    learner = trained.storage / "first" / "learner"
    code, out, err = command("evaluate", learner, "--ways", 4)
    assert (code, out) == (2, "")
    told = f"{learner} is fixed to its 3 ways, as maml learners are, so it cannot be judged at 4 ways; leave out --ways"
    assert told in err
    assert command("evaluate", learner, "--ways", 3, "--episodes", 2).code == 0
    experiment = make_experiment(algorithm=ProtoNet(batch_norm="transductive"))
    provenance = {"experiment": experiment.model_dump(mode="json")}
    dataclasses.replace(learner_of(experiment), provenance=provenance).save(tmp_path / "prototypes")
    judge = ("evaluate", tmp_path / "prototypes", "--episodes", 4, "--json")
    tree = json.loads(command(*judge, "--ways", 5, "--device", "cpu").out)
    assert tree["protocol"] == "5-way 1-shot, 2 queries a class, transductive batch norm"
    context = learner_of(experiment).context(5)
    judged = Judge(experiment.source, EpisodeSpec(ways=5, shots=1, queries=2), "meta-test", 4, 0)
    by_hand = judge_episodes(experiment.algorithm, learner_of(experiment).meta, context, judged, device=CPU)
    assert tree["accuracy"]["mean"] == by_hand.estimate.mean
    assert "9 ways asked for" in command(*judge, "--ways", 9).err
    assert "up to 9 ways asked for" in command(*judge, "--ways", "5..9").err


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_several_workers_print_what_one_process_prints(trained: Any, command: Command) -> None:
    learner = trained.storage / "first" / "learner"
    workers = ("--workers", 2, "--cpus-per-worker", 0.5, "--device", "cpu")
    expected = command("evaluate", learner, "--episodes", 9)
    assert expected.code == 0 and command("evaluate", learner, "--episodes", 9, *workers)[:2] == expected[:2]
    compared = command("compare", learner, learner, "--episodes", 9)
    assert compared.code == 0 and command("compare", learner, learner, "--episodes", 9, *workers)[:2] == compared[:2]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--set", "algorithm.inner_steps=5"), "--set 'algorithm.inner_steps=5' would change nothing: the learner is"),
        (("--set", "seed=5"), "what can be set is source, episodes, evaluation, precision, chunk_size, threads"),
        (("--set", "sead=5"), "Did you mean 'seed'"),
        (("--device", "tpu"), "unknown device 'tpu'"),
        (("--address", "head:6379"), "a cluster address ('head:6379') needs at least 1 worker"),
        (("--ways", "0"), "episodes to judge on: ways: Input should be greater than or equal to 1 (got 0)"),
        (("--ways", "3..5"), "is fixed to its 3 ways, as maml learners are, so it cannot be judged at 3 to 5 ways"),
        (("--queries", "all"), "or 'rest' for all that are left of each class (got 'all')"),
    ],
)
def test_options_that_cannot_be(options: tuple[str, ...], told: str, trained: Any, command: Command) -> None:
    code, out, err = command("evaluate", trained.storage / "first" / "learner", *options)
    assert (code, out) == (2, "") and told in err


def test_other_data_than_it_comes_from_are_refused_unless_they_are_named(
    trained: Any, tiny_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = load_learner(trained.storage / "first" / "learner")
    provenance = learner.provenance | {"source_fingerprint": "0123456789abcdef"}
    dataclasses.replace(learner, provenance=provenance).save(tmp_path / "learner")
    judge: dict[str, Any] = {"episodes": 2, "part": "meta-test", "tracking_uri": None, "trust": []}
    with pytest.raises(
        InputError, match=r"comes from other data: .* was 0123456789ab\.\.\., now .*--set source\.path="
    ):
        evaluate(str(tmp_path / "learner"), settings=["episodes.queries=3"], **judge)
    named = evaluate(str(tmp_path / "learner"), settings=[f"source.path={tiny_store}"], **judge)
    assert named.score.episodes == 2


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("source.path=other.arrow", True),
        ("source.targets=binary", True),
        ('source={"kind":"group_table","path":"other.arrow"}', True),
        ("source.judged_by=mae", False),
        ("source.target_std=2.5", False),
        ("episodes.shots=3", False),
    ],
)
def test_how_targets_are_judged_does_not_name_other_data(setting: str, named: bool) -> None:
    table = Experiment(
        name="table",
        source=GroupTable(path="table.arrow"),
        episodes=EpisodeSpec(shots=5, queries=5),
        model=MLP(),
        algorithm=MAML(),
    )
    assert Changes(settings=[setting]).name_data(table) == named
    assert Changes(settings=[setting, "source.path=other.arrow"]).name_data(table)


def test_other_ways_than_the_learner_has(trained: Any) -> None:
    learner = str(trained.storage / "first" / "learner")
    with pytest.raises(InputError, match="the learner is 3-way, the evaluation 4-way"):
        evaluate(learner, episodes=2, part="meta-test", settings=["episodes.ways=4"], tracking_uri=None, trust=[])
