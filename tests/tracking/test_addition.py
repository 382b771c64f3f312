"""Learners that no run trained, in the registry: judged on a source like any other, or without an alias."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import metaray
from metaray.config import replace
from metaray.data import FunctionFamily
from metaray.data.preprocessing import ImagePreprocessing
from metaray.errors import InputError
from metaray.experiment.experiment import Experiment
from metaray.learners.learner import Learner
from metaray.models.model import build_seeded
from metaray.tasks import Regression
from metaray.tracking import registry
from metaray.tracking.addition import add_learner
from metaray.tracking.client import open_client
from metaray.tracking.server import MlflowServer
from tests.user_networks import own

MakeExperiment = Callable[..., Experiment]
Command = Callable[..., Any]


@pytest.fixture
def experiment(make_experiment: MakeExperiment) -> Experiment:
    return make_experiment()


@pytest.fixture
def trained_learner(trained: Any) -> Learner:
    """That of the session's run, whose scores are known."""
    return metaray.load(trained.storage / "first" / "learner")


def foreign(experiment: Experiment, **changes: Any) -> Learner:
    """A module with weights that nobody trained, as a learner for an experiment's tasks."""
    model = changes.pop("model", experiment.model)
    module = build_seeded(model, experiment.source.feature_shape, 3, seed=5)
    parts = {"algorithm": experiment.algorithm, "preprocessing": experiment.source.preprocessing}
    return Learner.from_module(module, model=model, **parts | {"ways": 3, "shots": 1, "queries": 2} | changes)


def names(uri: str) -> list[str]:
    return [model.name for model in registry.list_models(MlflowServer(uri))]


def test_without_a_source_it_has_no_alias_and_says_why(experiment: Experiment, database: str) -> None:
    learner = foreign(experiment, provenance={"paper": "x"})
    added = learner.register("unjudged", tracking_uri=database)
    assert added.version.uri == "models:/unjudged/1" and added.version.aliases == () and added.scores is None
    protocol, registered, champion = str(added).splitlines()
    assert protocol == f"protocol: {experiment.protocol}" and registered == "registered: models:/unjudged/1"
    assert champion.startswith("champion: no, there is no source to judge it on, so it has no alias: register it with")
    assert champion.endswith("`metaray registry promote unjudged 1` gives it the alias all the same")
    found = metaray.load("models:/unjudged/1", tracking_uri=database)
    assert found.files() == learner.files() and found.provenance == {"paper": "x"}
    run = open_client(database).get_run(added.tracked.id)
    assert run.info.status == "FINISHED" and run.data.tags["origin"] == "trained elsewhere"
    assert run.data.params["algorithm.kind"] == "maml" and run.data.params["episodes.ways"] == "3"
    again = learner.register("unjudged", promote=True, tracking_uri=database)
    assert again.version.aliases == ("champion",) and "although there was no source" in again.decision.reason


def test_it_is_judged_as_the_run_judged_it(
    trained_learner: Learner, trained: Any, experiment: Experiment, command: Command
) -> None:
    added = trained_learner.register("judged", source=experiment, tracking_uri=trained.uri)
    lines = str(added).splitlines()
    wanted = [line for line in lines if line.startswith(("protocol", "meta-", "nearest"))]
    assert len(wanted) == 5
    reported = [re.sub(r", best of the run, .*", "", line) for line in trained.ended.out.splitlines()]
    assert set(wanted) <= set(reported)
    assert added.decision.reason.startswith("a first champion must surpass the nearest neighbour: meta-val difference")
    tags = registry.find_version(MlflowServer(trained.uri), "judged", 1).tags
    assert tags["meta_test.accuracy"] == str(added.scores.meta_test) and tags["champion.decision"].startswith("no, ")
    assert "meta-val accuracy" in tags["single_queries"]
    metrics = open_client(trained.uri).get_run(added.tracked.id).data.metrics
    assert metrics == {"val/accuracy": added.scores.meta_val.mean, "test/accuracy": added.scores.meta_test.mean}
    code, out, _ = command("evaluate", "models:/judged/1", "--tracking-uri", trained.uri, "--episodes", 8)
    assert code == 0 and lines[-3] in out


def test_a_later_one_must_surpass_the_champion(
    trained_learner: Learner, experiment: Experiment, database: str, command: Command
) -> None:
    first = trained_learner.register("contested", source=experiment, promote=True, tracking_uri=database)
    assert first.version.aliases == ("champion",) and first.decision.reason.startswith("--promote said so, although")
    second = trained_learner.register("contested", source=experiment, tracking_uri=database)
    assert second.version.version == 2 and second.version.aliases == ()
    assert re.match(r"meta-val difference to version 1: \+0.0000 \+- 0.0000, whose interval", second.decision.reason)
    other = foreign(experiment).register("contested", source=experiment.source, tracking_uri=database)
    assert other.scores.meta_val.episodes == 200 and "difference to version 1: " in other.decision.reason
    learner = metaray.load(other.version.uri, tracking_uri=database)
    assert learner.provenance["trained_elsewhere"] is True
    options = ("--tracking-uri", database, "--episodes", 1000)
    code, out, _ = command("evaluate", other.version.uri, *options)
    assert (code, out.splitlines()[-1]) == (0, f"meta-test accuracy: {other.scores.meta_test}")


def test_regression_is_judged_too(make_waves: MakeExperiment, database: str) -> None:
    waves = make_waves()
    module = build_seeded(waves.model, (1,), 1, seed=0)
    parts: dict[str, Any] = {
        "algorithm": waves.algorithm,
        "preprocessing": waves.source.preprocessing,
        "shots": 5,
        "queries": 4,
    }
    learner = Learner.from_module(module, model=waves.model, **parts, task=Regression())
    told: list[tuple[str, int, int]] = []
    added = add_learner(
        learner, "waves-elsewhere", source=waves, tracking=database, progress=lambda *news: told.append(news)
    )
    assert {what for what, _, _ in told} == {
        "meta-val",
        "meta-test",
        "meta-test before adaptation",
        "meta-test by nearest neighbour",
        "meta-val by nearest neighbour",
    }
    assert {(done, episodes) for what, done, episodes in told if what == "meta-val"} == {(n, 6) for n in range(1, 7)}
    assert added.quality == "mse" and "meta-test mse: " in str(added) and "chance" not in added.decision.reason


def test_what_the_source_must_be_like(experiment: Experiment, make_waves: MakeExperiment, database: str) -> None:
    prepared = ImagePreprocessing(height=16, width=16, mean=(0.5,), std=(0.25,))
    told: dict[str, tuple[dict[str, Any], Any]] = {
        r"the source prepares its inputs otherwise than the learner: mean.* is \(0.0,\), the learner's is \(0.5,\)": (
            {"preprocessing": prepared},
            experiment,
        ),
        "9 ways": ({"ways": 9, "model": experiment.model}, experiment),
        "yields regression tasks": ({}, FunctionFamily()),
        "takes inputs": (
            {"preprocessing": ImagePreprocessing(height=8, width=8)},
            experiment,
        ),
    }
    for message, (changes, source) in told.items():
        shape = changes.get("preprocessing", experiment.source.preprocessing).feature_shape
        module = build_seeded(experiment.model, shape, changes.get("ways", 3), seed=5)
        parts: dict[str, Any] = {"model": experiment.model, "algorithm": experiment.algorithm, "ways": 3}
        parts["preprocessing"] = experiment.source.preprocessing
        learner = Learner.from_module(module, **{**parts, "shots": 1, "queries": 2} | changes)
        with pytest.raises(InputError, match=message):
            learner.register("never", source=source, tracking_uri=database)
    with pytest.raises(InputError, match="name of the model 'a b': use letters, digits"):
        foreign(experiment).register("a b", tracking_uri=database)
    assert "never" not in names(database)


def test_a_network_that_needs_files_is_refused_before_anything_is_written(
    experiment: Experiment, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.torch import save_file

    from tests.user_networks import TABLE, WIDTH

    save_file({"table": torch.zeros(WIDTH)}, tmp_path / "table.safetensors")
    monkeypatch.setenv(TABLE, str(tmp_path / "table.safetensors"))
    learner = foreign(experiment, model=own("Reading", how="persistent"))
    with pytest.raises(InputError, match="needs files that are not in the learner: it opens .*table.safetensors"):
        learner.register("never", tracking_uri=database)
    assert "never" not in names(database)


def test_the_command(experiment: Experiment, database: str, tmp_path: Path, tiny_store: Path, command: Command) -> None:
    foreign(experiment).save(tmp_path / "learner")
    (tmp_path / "judge.json").write_text(experiment.to_json())
    add = ("registry", "add", tmp_path / "learner", "--name", "by-command", "--tracking-uri", database)
    code, out, err = command(*add)
    assert (code, err) == (0, "") and "champion: no, there is no source to judge it on" in out
    code, out, err = command(*add, "--source", tmp_path / "judge.json")
    assert code == 0 and re.search(r"^meta-test accuracy: .* \(8 episodes\)$", out, re.MULTILINE)
    code, out, _ = command(*add, "--source", tmp_path / "judge.json", "--promote", "--json")
    tree = json.loads(out)
    assert (code, tree["registered"], tree["champion"]) == (0, "models:/by-command/3", True)
    assert tree["meta_val"]["episodes"] == 6 and tree["protocol"] == experiment.protocol
    code, _, err = command(*add, "--source", tmp_path / "missing.arrow")
    assert code == 2 and "missing.arrow" in err
    code, _, err = command(*add, "--source", tiny_store, "--split", "vinyals")
    assert code == 2 and "vinyals" in err and err.count("\n") == 1
    assert command("registry", "add", tmp_path, "--name", "x", "--tracking-uri", database).code == 2


def test_code_of_ones_own_says_what_to_set(
    experiment: Experiment, database: str, tmp_path: Path, command: Command
) -> None:
    learner = foreign(experiment, model=own("Plain"))
    added = learner.register("own-elsewhere", source=replace(experiment, num_steps=1), tracking_uri=database)
    version = open_client(database).get_model_version("own-elsewhere", "1")
    assert f"METARAY_TRUST=tests@{learner.own_code['tests']}" in version.description
    assert added.scores is not None
    learner.save(tmp_path / "learner")
    add = ("registry", "add", tmp_path / "learner", "--name", "own-elsewhere", "--tracking-uri", database)
    code, _, err = command(*add)
    assert code == 2 and "refusing to import 'tests.user_networks:Plain'" in err
    assert command(*add, "--trust", "tests").code == 0
