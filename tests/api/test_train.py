import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow.artifacts
import numpy as np
import pytest
import torch

import metaray
from metaray.algorithms import MAML
from metaray.algorithms.context import Context
from metaray.api.evaluate import evaluate
from metaray.api.train import Report
from metaray.api.train import train as train_run
from metaray.data import ClassStore
from metaray.errors import InputError, RunFailed, RunStopped
from metaray.experiment.experiment import Experiment
from metaray.experiment.overrides import flatten
from metaray.manifest import sealed_json, unsealed_json
from metaray.records.checkpoint_files import checkpoint_name
from metaray.records.estimate import Estimate
from metaray.records.events import Event, Listener
from metaray.records.execution import read_executed
from metaray.records.provenance import git_state
from metaray.records.storage import Storage
from metaray.tracking.client import open_client
from metaray.tracking.mlflow_run import MlflowRun
from metaray.tracking.registry import champion, show
from metaray.tracking.server import MlflowServer
from metaray.training.checks.preflight import check_shares
from metaray.training.placement import Placement
from tests.user_networks import Counted, own

MakeExperiment = Callable[..., Experiment]


def tracked(trained: Any) -> Any:
    """The MLflow run of the session's first run."""
    record = json.loads((trained.storage / "first" / "run.json").read_text())
    return open_client(trained.uri).get_run(record["tracking_run"])


def artifact(trained: Any, name: str) -> bytes:
    uri = f"{tracked(trained).info.artifact_uri}/{name}"
    return Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, tracking_uri=trained.uri)).read_bytes()


def test_the_mlflow_run_says_what_was_done(trained: Any, make_experiment: MakeExperiment) -> None:
    found, experiment = tracked(trained), make_experiment()
    assert (found.info.run_name, found.info.status) == ("first", "FINISHED")
    assert found.data.params == flatten(experiment.model_dump(mode="json"))
    tags = found.data.tags
    assert tags["source.fingerprint"] == experiment.source.fingerprint
    assert tags["protocol"] == experiment.protocol
    assert {key: tags[key] for key in git_state(Path.cwd())} == git_state(Path.cwd())
    assert {"metaray.version", "torch.version", "cpu.capability", "command"} <= set(tags)
    assert artifact(trained, "experiment.json").decode() == experiment.to_json()
    told = {key: value for key, value in tags.items() if key.partition(".")[0] == "execution"}
    executed = read_executed(Storage(str(trained.storage / "first")))
    assert executed is not None and told == executed.tags
    assert {"execution": "each", "execution.convolutions": "plain", "execution.data_on": "host"}.items() <= told.items()


def test_the_first_line_says_how_many_workers_the_run_can_ever_use(
    trained: Any, make_experiment: MakeExperiment
) -> None:
    """As its record does, and as the checks do that refuse more."""
    experiment, cpu = make_experiment(), torch.device("cpu")
    executed = read_executed(Storage(str(trained.storage / "first")))
    assert executed is not None
    most = executed.most_workers
    log = (trained.storage / "first" / "log.txt").read_text()
    assert f"run: first (at most {most} workers, each on a CPU)\n" in log
    check_shares(experiment, most, cpu)
    with pytest.raises(InputError, match=f"{most + 1} workers for a meta-batch of {most}"):
        check_shares(experiment, most + 1, cpu)


def test_what_an_algorithm_of_the_users_own_raises(
    make_experiment: MakeExperiment, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its line comes first; the run's folder and MLflow have the whole of it."""

    def meta_gradient(self: MAML, meta: Any, chunk: Any, context: Context) -> Any:
        if context.step == 3:
            return meta["b"]
        return original(self, meta, chunk, context)

    original = MAML.meta_gradient
    monkeypatch.setattr(MAML, "meta_gradient", meta_gradient)
    options: dict[str, Any] = {"run": "x", "storage": str(tmp_path), "tracking_uri": database, "progress": False}
    with pytest.raises(RunFailed, match=r"KeyError: 'b' \(.*test_train.py:\d+, in meta_gradient\)") as caught:
        train_run(make_experiment(name="raises"), **options)
    assert caught.value.told.splitlines()[-3].endswith(": in meta_gradient")
    assert caught.value.told.splitlines()[-2:] == ['    return meta["b"]', "E   KeyError: 'b'"]
    text = (tmp_path / "x" / "failure.txt").read_text()
    assert text in (tmp_path / "x" / "log.txt").read_text() and "Traceback (most recent call last)" in text
    record = json.loads((tmp_path / "x" / "run.json").read_text())
    found = open_client(database).get_run(record["tracking_run"])
    uri = f"{found.info.artifact_uri}/failure.txt"
    logged = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, tracking_uri=database)).read_text()
    assert found.info.status == "FAILED" and "KeyError: 'b'" in logged and "Traceback" in logged

    monkeypatch.setattr(MAML, "meta_gradient", original)
    assert train_run(make_experiment(name="raises"), **options).version is not None
    assert not (tmp_path / "x" / "failure.txt").exists()


def test_metrics_by_step(trained: Any) -> None:
    run_id = tracked(trained).info.run_id
    for key, steps in {
        "val/loss": [2, 4, 6],
        "val/accuracy": [2, 4, 6],
        "train/loss": [1, 2, 3, 4, 5, 6],
        "train/accuracy": [1, 2, 3, 4, 5, 6],
        "train/outer_lr": [1, 2, 3, 4, 5, 6],
        "train/gradient_norm": [1, 2, 3, 4, 5, 6],
    }.items():
        history = open_client(trained.uri).get_metric_history(run_id, key)
        assert [metric.step for metric in history] == steps, key


def test_files_of_the_run(trained: Any) -> None:
    client, run_id = open_client(trained.uri), tracked(trained).info.run_id
    assert {item.path for item in client.list_artifacts(run_id)} >= {
        "checkpoints",
        "experiment.json",
        "learning_curve.png",
        "result.json",
    }
    assert artifact(trained, "learning_curve.png").startswith(b"\x89PNG")
    saved = {Path(item.path).name for item in client.list_artifacts(run_id, "checkpoints")}
    assert checkpoint_name(6) in saved
    assert saved == {path.name for path in (trained.storage / "first" / "checkpoints").iterdir()}
    result = json.loads((trained.storage / "first" / "result.json").read_text())
    assert checkpoint_name(result["best_step"]) in saved


def test_the_version_says_how_good_it_is(trained: Any, make_experiment: MakeExperiment) -> None:
    experiment = make_experiment()
    first = show(MlflowServer(trained.uri), "tiny").versions[-1]
    assert first.run_id == tracked(trained).info.run_id
    assert {key: first.tags[key] for key in ("algorithm", "model", "source", "source.fingerprint", "protocol")} == {
        "algorithm": "maml",
        "model": "mlp",
        "source": "class_store",
        "source.fingerprint": experiment.source.fingerprint,
        "protocol": experiment.protocol,
    }
    result = json.loads((trained.storage / "first" / "result.json").read_text())
    assert first.tags["meta_test.accuracy"] == str(Estimate(**result["meta_test"]))
    assert first.tags["meta_val.accuracy"] == str(Estimate(**result["meta_val"]))


def test_the_registered_learner_adapts_to_raw_images(trained: Any, tiny_source: ClassStore) -> None:
    learner = metaray.load("models:/tiny@champion", tracking_uri=trained.uri)
    x = np.concatenate([tiny_source.examples(c)[:3, 0] for c in (20, 21, 22)])
    known, asked = x[::3], np.delete(x, np.s_[::3], axis=0)
    task = learner.adapt(known, ["a", "b", "c"])
    assert set(task.predict(asked)) <= {"a", "b", "c"}
    folder = metaray.load(trained.storage / "first" / "learner")
    expected = folder.adapt(known, ["a", "b", "c"]).predict_proba(asked)
    np.testing.assert_array_equal(task.predict_proba(asked), expected)


def test_mlflow_loads_the_champion(trained: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow.pyfunc

    from metaray.serving.pyfunc import PyfuncLearner, example_input

    monkeypatch.setenv("MLFLOW_TRACKING_URI", trained.uri)
    learner = metaray.load("models:/tiny@champion")
    table = example_input(learner)
    found = mlflow.pyfunc.load_model("models:/tiny@champion").predict(table)
    assert list(found.columns) == ["label", "probability", "probabilities", "distribution"]
    assert found.equals(PyfuncLearner(learner).predict(table))


def test_a_users_network_is_built_as_often_as_needed(
    make_experiment: MakeExperiment, train: Callable[..., Report], database: str
) -> None:
    """It may print something, and take long; the baseline, which asks no network, builds none."""
    settings: dict[str, Any] = {"settings": [], "tracking_uri": database, "trust": ["tests"]}
    Counted.built = 0
    report = train(make_experiment(name="counted", model=own("Counted"), num_steps=2))
    assert Counted.built == 4  # two to be compared, one to be trained, one to see that the saved learner can be loaded
    assert report.version is not None
    Counted.built = 0
    judged = evaluate(report.version.uri, episodes=8, part="meta-test", **settings)
    assert Counted.built == 2  # after and before adaptation
    assert judged.score == report.result.meta_test
    assert judged.nearest_neighbor == report.result.nearest_neighbor
    Counted.built = 0
    learner = metaray.load(report.version.uri, tracking_uri=database, trust=["tests"])
    learner.adapt(np.zeros((3, 8, 8), np.uint8), ["a", "b", "c"])
    assert Counted.built == 1
    assert learner.network is not learner.network, "each has its own"


def test_without_registering(make_experiment: MakeExperiment, train: Callable[..., Report], database: str) -> None:
    report = train(make_experiment(name="unregistered", num_steps=0), register=False)
    assert (report.version, report.decision) == (None, None)
    assert champion(MlflowServer(database), "unregistered") is None


def test_a_stopped_run_says_how_to_go_on(
    make_experiment: MakeExperiment, train: Callable[..., Report], database: str
) -> None:
    experiment = make_experiment(name="halted")
    with pytest.raises(RunStopped, match=r"after step 0; a checkpoint holds it; --run halted-\S+ goes on from there"):
        train(experiment, should_stop=lambda: True)
    with pytest.raises(RunStopped):
        train(experiment, run="x", should_stop=lambda: True)
    client = open_client(database)
    place = client.get_experiment_by_name("halted").experiment_id
    assert {found.info.status for found in client.search_runs([place])} == {"KILLED"}
    report = train(experiment, run="x")
    assert report.result.num_steps == 6
    assert client.get_run(report.tracking_run).info.status == "FINISHED"
    history = client.get_metric_history(report.tracking_run, "train/loss")
    assert sorted({metric.step for metric in history}) == [1, 2, 3, 4, 5, 6]


def test_a_lost_server_does_not_hide_why_the_run_ended(
    make_experiment: MakeExperiment, train: Callable[..., Report], monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*arguments: Any) -> None:
        raise RunFailed("the end of the run could not be stored")

    monkeypatch.setattr(MlflowRun, "finish", lost)
    with pytest.raises(RunFailed, match="stopped at step") as caught:
        train(make_experiment(name="lost", algorithm={"kind": "maml", "inner_lr": 1e30, "inner_steps": 2}))
    assert caught.value.__notes__ == ["the end of the run could not be stored"]
    assert "goes on" not in str(caught.value)  # the same experiment would come to the same end


def test_no_room_on_the_cluster(
    make_experiment: MakeExperiment, train: Callable[..., Report], database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(placement: Placement) -> None:
        raise InputError(f"{placement.workers} workers x 1 CPUs = 4 CPUs, but the cluster has 2")

    monkeypatch.setattr("metaray.distributed.cluster.connect", full)
    with pytest.raises(InputError, match="but the cluster has 2"):
        train(make_experiment(name="crowded"), workers=4)
    assert open_client(database).get_experiment_by_name("crowded") is None


def test_phases_are_told(make_experiment: MakeExperiment, database: str, tmp_path: Path) -> None:
    heard: list[Event] = []

    class Ear(Listener):
        def on_event(self, event: Event) -> None:
            heard.append(event)

        def close(self) -> None:
            pass

    places: dict[str, Any] = {"storage": str(tmp_path), "tracking_uri": database}
    train_run(make_experiment(name="heard", num_steps=1), **places, register=False, progress=Ear())
    kinds = [event.kind for event in heard]
    assert [event.text for event in heard if event.kind == "phase"][-2:] == ["training", "meta-test"]
    assert {"step", "metrics", "evaluation"} <= set(kinds)


@pytest.fixture
def copied(trained: Any, tmp_path: Path) -> tuple[Path, tuple[object, ...]]:
    """A copy of the session's first run, and the command that goes on with it."""
    shutil.copytree(trained.storage, tmp_path / "runs")
    words = [tmp_path / "runs" if word == str(trained.storage) else word for word in trained.arguments]
    words.remove("--promote")
    return tmp_path / "runs/first", (*words, "--no-register")


def test_metrics_that_are_damaged_on_disk_are_named(copied: Any, command: Any) -> None:
    folder, words = copied
    segment = sorted((folder / "metrics").iterdir())[0]
    segment.write_text(segment.read_text().replace("train/loss", "urain/loss", 1))
    (folder / "published.json").unlink()
    ended = command(*words)
    assert ended.code == 0 and f"note: {segment} is damaged: 1 of its " in ended.out
    assert "is damaged: 1 of its " in command(*words, "--json").out


def test_a_run_that_does_not_say_its_data_goes_on_with_a_note(copied: Any, command: Any) -> None:
    folder, words = copied
    record = unsealed_json((folder / "run.json").read_bytes(), where="run.json")
    (folder / "run.json").write_bytes(sealed_json(record | {"source_fingerprint": ""}))
    ended = command(*words)
    assert ended.code == 0 and "it does not say on what data it was begun" in ended.err


@pytest.mark.parametrize("name", ["run.json", "result.json", "published.json"])
def test_a_damaged_record_is_refused_with_what_to_do(name: str, copied: Any, command: Any) -> None:
    folder, words = copied
    text = (folder / name).read_text()
    (folder / name).write_text(text.replace('"sha256": "', '"sha256": "0'))
    ended = command(*words)
    assert ended.code != 0 and f"{folder / name}: damaged: it does not match its checksum" in ended.err
    assert re.search("restore it from a copy|delete it", ended.err)
    (folder / name).write_text(text)
    assert command(*words).code == 0


def test_a_profile_is_shown_and_kept_with_the_run(
    make_experiment: MakeExperiment, command: Any, train: Callable[..., Report], database: str, tmp_path: Path
) -> None:
    (tmp_path / "tiny.json").write_text(make_experiment().to_json())
    places = ("--run", "looked-at", "--storage", tmp_path / "runs", "--tracking-uri", database, "--no-register")
    code, out, err = command("train", tmp_path / "tiny.json", *places, "--profile", "2")
    assert code == 0, err
    table = (tmp_path / "runs/looked-at/profile/table.txt").read_text()
    assert out.startswith(f"{table}\nprotocol: ") and "\nouter backward " in table
    assert "profile/table.txt, and profile/trace.json.gz for https://ui.perfetto.dev" in err
    # Five steps do not fit into six with their warm-up, but there is a profile already.
    report = train(make_experiment(), run="looked-at", profile=True)
    assert report.tree()["profile"] == str(tmp_path / "runs/looked-at/profile")
    client, run_id = open_client(database), report.tracking_run
    assert run_id is not None
    sizes = {item.path: item.file_size for item in client.list_artifacts(run_id, "profile")}
    assert sizes == {
        f"profile/{path.name}": path.stat().st_size for path in (tmp_path / "runs/looked-at/profile").iterdir()
    }


def test_a_profile_that_cannot_be_is_refused_before_anything_is_written(
    trained: Any, make_experiment: MakeExperiment, command: Any, train: Callable[..., Report], tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"--profile 5 needs 3 steps to warm up and 5 to look at, but the run has 6 "):
        train(make_experiment(), run="short", profile=True)
    assert not (tmp_path / "runs" / "short").exists()
    code, _, err = command(*trained.arguments, "--profile")
    assert (code, err.splitlines()[-1]) == (
        2,
        "error: --profile 5 needs 3 steps to warm up and 5 to look at, but run 'first' is finished: profile a new run",
    )
