"""What becomes champion, and what the registry says of a learner: whole runs."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import metaray
from metaray.algorithms import R2D2, ProtoNet
from metaray.api.evaluate import evaluate
from metaray.api.train import Report
from metaray.api.upload import upload
from metaray.data import FunctionFamily
from metaray.errors import InputError
from metaray.experiment.experiment import Evaluation, Experiment
from metaray.models import MLP, Conv4
from metaray.models.batch_norm import Protocol
from metaray.records.estimate import Estimate, paired_difference
from metaray.records.result import RESULT
from metaray.tasks.baselines import title_of
from metaray.tracking.client import open_client
from metaray.tracking.registry import champion
from metaray.tracking.server import MlflowServer
from tests.training.test_table_session import experiment_of
from tests.user_networks import own

MakeExperiment = Callable[..., Experiment]


def test_the_champion_changes_only_for_the_better(
    make_experiment: MakeExperiment, train: Callable[..., Report], database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = make_experiment(name="contest", num_steps=1)
    first = train(experiment, promote=True)
    assert first.version is not None
    assert first.decision is not None
    assert first.decision.promote
    assert first.decision.reason.startswith("--promote said so, although a first champion must surpass the nearest")

    second = train(experiment)
    assert second.version is not None
    assert second.run.name != first.run.name
    assert second.result.parameters_sha256 == first.result.parameters_sha256
    assert (second.version.version, second.version.aliases) == (2, ())
    assert second.decision is not None
    assert not second.decision.promote
    assert second.decision.reason == (
        "meta-val difference to version 1: +0.0000 +- 0.0000, whose interval is not above zero"
    )
    asked = []

    def better(challenger: Any, present: Any) -> Estimate:
        asked.append((len(challenger), len(present)))
        return Estimate(0.1, 0.05, 6)

    monkeypatch.setattr("metaray.tracking.promotion.paired_difference", better)
    third = train(experiment)
    assert third.version is not None
    assert asked == [(6, 6)]
    assert third.decision == (True, "meta-val difference to version 1: +0.1000 +- 0.0500")
    assert (third.version.version, third.version.aliases) == (3, ("champion",))
    now = champion(MlflowServer(database), "contest")
    assert now is not None
    assert now.version == 3


def test_a_champion_that_cannot_be_compared_stays(
    make_experiment: MakeExperiment,
    train: Callable[..., Report],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    experiment = make_experiment(name="incomparable", num_steps=0)
    train(experiment, promote=True)
    trusted = []

    def refuse(folder: Path, *, trust: Any) -> Any:
        trusted.append(list(trust))
        if trust != ["*"]:  # not the run's own
            raise InputError("refusing to import 'evil:Net'")
        return original(folder, trust=trust)

    from metaray.serving.loading import load_learner as original

    monkeypatch.setattr("metaray.tracking.registration.load_learner", refuse)
    report = train(experiment)
    assert report.decision == (
        False,
        "not comparable with the champion, version 1: refusing to import 'evil:Net'",
    )
    assert ["metaray"] in trusted, "a champion from the registry may name no code but metaray's"


def published(uri: str, report: Report) -> Any:
    """The version as MLflow has it."""
    assert report.version is not None
    return open_client(uri).get_model_version(report.version.name, str(report.version.version))


@pytest.mark.parametrize("quality", ["accuracy", "mse"])
def test_a_first_version_behind_the_nearest_neighbour_is_registered_without_the_alias(
    quality: str,
    make_experiment: MakeExperiment,
    make_waves: MakeExperiment,
    train: Callable[..., Report],
    database: str,
) -> None:
    make, name = (make_experiment, "behind") if quality == "accuracy" else (make_waves, "behind-waves")
    report = train(make(name=name, num_steps=1))
    assert report.version is not None and report.version.aliases == ()
    assert report.decision is not None and not report.decision.promote
    assert report.decision.reason.startswith("a first champion must surpass the nearest neighbour: meta-val")
    assert published(database, report).tags["champion.decision"] == f"no, {report.decision.reason}"
    assert champion(MlflowServer(database), name) is None

    insisted = train(make(name=name, num_steps=1), run=report.run.name, promote=True)
    assert insisted.version is not None
    assert (insisted.version.version, insisted.version.aliases) == (1, ("champion",))
    assert insisted.decision == (True, f"--promote said so, although {report.decision.reason}")
    assert published(database, insisted).tags["champion.decision"] == f"yes, {insisted.decision.reason}"
    later = train(make(name=name, num_steps=1))
    assert later.decision is not None and "difference to version 1" in later.decision.reason


def test_a_first_version_that_surpasses_it_becomes_champion(
    make_waves: MakeExperiment, train: Callable[..., Report]
) -> None:
    """Straight lines: ridge regression finds them at once, the nearest neighbour does not."""
    algorithm, model = R2D2(initial_regularizer=1e-3), MLP(hidden=(40, 40), batch_norm=False)
    plan = Evaluation(every=20, val_episodes=40, test_episodes=8)
    lines = FunctionFamily(family="line")
    report = train(
        make_waves(name="ahead", source=lines, algorithm=algorithm, model=model, num_steps=20, evaluation=plan)
    )
    assert report.version is not None and report.version.aliases == ("champion",)
    assert report.decision is not None
    assert report.decision.reason.startswith("the first champion, meta-val mse difference to the nearest neighbour: -")


def test_a_run_of_before_baselines_were_kept_is_judged_by_them_too(
    make_experiment: MakeExperiment, train: Callable[..., Report], tmp_path: Path, database: str
) -> None:
    report = train(make_experiment(name="older", num_steps=1), register=False)
    path = tmp_path / "runs" / report.run.name / RESULT
    tree = json.loads(path.read_text())
    kept = tree.pop("baselines")["nearest_neighbor"]["val_scores"]
    assert tree.pop("device") == "cpu"
    del tree["sha256"]  # nor had results a checksum then
    path.write_text(json.dumps(tree))
    done = upload(report.run.name, storage=str(tmp_path / "runs"), tracking=database, register=True)
    assert isinstance(done, Report) and done.decision is not None
    difference = paired_difference(report.result.meta_val_scores, kept)
    assert f"the nearest neighbour: {difference.mean:+.4f} +- {difference.half_width:.4f}" in done.decision.reason


@pytest.mark.parametrize("ahead", ["nearest_neighbor", "support_mean", "ridge", None])
def test_a_first_version_must_surpass_every_baseline_of_its_source(
    ahead: str | None, train: Callable[..., Report], tmp_path: Path, database: str
) -> None:
    plan = Evaluation(every=0, val_episodes=4, test_episodes=4)
    report = train(experiment_of(tmp_path, R2D2(), name=f"behind-{ahead}", evaluation=plan), register=False)
    path = tmp_path / "runs" / report.run.name / RESULT
    tree = json.loads(path.read_text())
    assert list(report.result.baselines) == ["nearest_neighbor", "support_mean", "ridge"]
    scores = report.result.meta_val_scores
    for name, rival in tree["baselines"].items():
        assert len(rival["val_scores"]) == len(scores) == 4
        rival["val_scores"] = [score - 1 if name == ahead else score + 1 for score in scores]
    del tree["sha256"]
    path.write_text(json.dumps(tree))
    done = upload(report.run.name, storage=str(tmp_path / "runs"), tracking=database, register=True)
    assert isinstance(done, Report) and done.decision is not None
    if ahead is None:
        assert done.decision.promote and done.decision.reason.endswith("to the ridge regression: -1.0000 +- 0.0000")
    else:
        told = f"a first champion must surpass the {title_of(ahead)}: meta-val mse difference"
        assert not done.decision.promote and done.decision.reason.startswith(told)


def test_the_nearest_neighbour_asks_nothing_of_a_users_network(
    make_experiment: MakeExperiment, train: Callable[..., Report], tmp_path: Path, database: str
) -> None:
    """One that takes only whole numbers of outputs is judged, registered and added like any other."""
    experiment = make_experiment(name="whole", model=own("WholeNumber"), num_steps=1)
    report = train(experiment, register=False)
    path = tmp_path / "runs" / report.run.name / RESULT
    tree = json.loads(path.read_text())
    del tree["baselines"], tree["sha256"]
    path.write_text(json.dumps(tree))
    done = upload(report.run.name, storage=str(tmp_path / "runs"), tracking=database, register=True, trust=["tests"])
    assert isinstance(done, Report) and done.version is not None and done.decision is not None
    assert "the nearest neighbour" in done.decision.reason
    judge: dict[str, Any] = {"settings": [], "tracking_uri": database, "trust": ["tests"]}
    judged = evaluate(done.version.uri, episodes=8, part="meta-test", **judge)
    assert (judged.score, judged.nearest_neighbor) == (report.result.meta_test, report.result.nearest_neighbor)
    learner = metaray.load(done.version.uri, tracking_uri=database, trust=["tests"])
    added = learner.register("whole-again", source=experiment, tracking_uri=database)
    assert added.scores is not None and added.scores.nearest_neighbor == report.result.nearest_neighbor


@pytest.mark.parametrize("protocol", ["transductive", "inductive"])
def test_the_registry_says_what_a_learner_loses_at_one_query(
    protocol: Protocol, make_experiment: MakeExperiment, train: Callable[..., Report], database: str
) -> None:
    experiment = make_experiment(
        name=f"alone-{protocol}", algorithm=ProtoNet(batch_norm=protocol), model=Conv4(channels=4), num_steps=1
    )
    report, depends = train(experiment), protocol == "transductive"
    version = published(database, report)
    assert version.tags["depends_on_batch"] == str(depends).lower()
    assert ("single_queries" in version.tags) == depends
    learner = metaray.load(f"models:/alone-{protocol}/1", tracking_uri=database)
    assert learner.provenance["depends_on_batch"] == depends
    described = yaml.safe_load(Path(version.source.removeprefix("file://"), "MLmodel").read_text())
    assert described["metadata"] == {"depends_on_batch": depends, "protocol": experiment.protocol}
    if depends:
        lost = version.tags["single_queries"]
        assert re.fullmatch(
            r"meta-val accuracy \d\.\d+ one by one, \d\.\d+ together: difference .* queries of each\)", lost
        )
        assert "\n\nAnswers depend on the other queries of the same call" in version.description
        assert version.description.endswith(f"One query at a time: {lost}.")


@pytest.mark.parametrize("line", ["train", "upload", "tune"])
def test_promotion_without_registering_is_refused(line: str, trained: Any, command: Callable[..., Any]) -> None:
    first = "first" if line == "upload" else trained.experiment
    search = ("--search", "algorithm.inner_lr=uniform(0.1,0.2)", "--trials", 2) if line == "tune" else ()
    places = ("--storage", trained.storage, "--tracking-uri", trained.uri)
    code, out, err = command(line, first, *search, *places, "--no-register", "--promote")
    message = "error: --promote gives a registered learner the alias @champion: leave out --no-register"
    assert (code, out, err.splitlines()[-1]) == (2, "", message)
