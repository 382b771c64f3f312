"""Regression by the command line: train, registry, evaluate, adapt, predict, and who is champion."""

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import mlflow.artifacts
import numpy as np
import pytest
from PIL import Image

import metaray
from metaray.api.train import train
from metaray.errors import InputError
from metaray.experiment.experiment import Experiment
from metaray.experiment.optimizer import Optimizer
from metaray.records.estimate import Estimate
from metaray.records.result import Result
from metaray.tracking.client import open_client
from metaray.tracking.registry import champion, show
from metaray.tracking.server import MlflowServer

Command = Callable[..., Any]
MakeExperiment = Callable[..., Experiment]
ESTIMATE = r"\d+\.\d{4} \+- \d+\.\d{4} \(\d episodes\)"


class Waves(NamedTuple):
    """A run of regression: how the command ended, and its arguments."""

    ended: Any
    arguments: tuple[str, ...]
    storage: Path
    uri: str


@pytest.fixture(scope="module")
def waves(
    make_waves: MakeExperiment,
    command: Command,
    make_database: Callable[[str], str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Waves:
    folder, database = tmp_path_factory.mktemp("waves"), make_database("waves")
    (folder / "waves.json").write_text(make_waves().to_json())
    places = ("--storage", str(folder / "runs"), "--tracking-uri", database)
    arguments = ("train", str(folder / "waves.json"), "--run", "first-waves", "--promote", *places)
    return Waves(command(*arguments), arguments, folder / "runs", database)


@pytest.fixture
def adapt(waves: Waves, command: Command, tmp_path: Path) -> Command:
    """`metaray adapt` of the champion to three points, asked for two others."""
    (tmp_path / "support.csv").write_text("x,y\n-1,0.5\n0,1\n2,-1\n")
    (tmp_path / "query.csv").write_text("x\n3\n1\n")
    places = ("models:/waves@champion", "--tracking-uri", waves.uri, "--support", tmp_path / "support.csv")
    return lambda *arguments: command("adapt", *places, *arguments)


def test_train_prints_squared_errors(waves: Waves) -> None:
    code, out, err = waves.ended
    assert code == 0
    expected = [
        r"protocol: 5-shot, 4 queries, transductive batch norm",
        rf"meta-val mse: {ESTIMATE}, best of the run, after step [246]",
        rf"nearest neighbour on inputs: {ESTIMATE}; the learner is (better|worse) by .*, episode by episode",
        rf"meta-test mse before training: {ESTIMATE}",
        rf"meta-test mse before adaptation: {ESTIMATE}",
        rf"meta-test mae: {ESTIMATE}",
        rf"meta-test mse: {ESTIMATE}",
    ]
    for pattern, line in zip(expected, out.splitlines(), strict=False):
        assert re.fullmatch(pattern, line)
    assert "registered: models:/waves/1 (@champion)" in out
    assert re.search(r"step 6/6  loss [\d.]+  mse [\d.]+  \d+ episodes/s", err)
    assert re.search(r"step 2: meta-val loss [\d.]+  mse [\d.]+", err) and "accuracy" not in out + err


def test_as_json_and_again(waves: Waves, command: Command) -> None:
    code, out, _ = command(*waves.arguments, "--json")
    found = json.loads(out)
    assert (code, found["quality"], found["registered"]) == (0, "mse", "models:/waves/1 (@champion)")
    assert f"meta-test mse: {Estimate(**found['meta_test'])}" in waves.ended.out


def test_the_registry_says_what_the_number_is(waves: Waves, command: Command) -> None:
    result = Result.from_json((waves.storage / "first-waves" / "result.json").read_text())
    (version,) = show(MlflowServer(waves.uri), "waves").versions
    assert version.tags["meta_test.mse"] == str(result.meta_test)
    assert version.tags["meta_val.mse"] == str(result.meta_val)
    assert not any("accuracy" in key for key in version.tags)
    _, out, _ = command("registry", "list", "--tracking-uri", waves.uri)
    (row,) = [line for line in out.splitlines() if line.split()[0] == "waves"]
    assert row.rstrip().endswith(f"mse {result.meta_test}")


def test_the_mlflow_run_has_a_picture_of_the_fit(waves: Waves, tmp_path: Path) -> None:
    (version,) = show(MlflowServer(waves.uri), "waves").versions
    found = open_client(waves.uri).get_run(str(version.run_id))
    for name in ("fit.png", "learning_curve.png"):
        uri = f"{found.info.artifact_uri}/{name}"
        path = mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(tmp_path), tracking_uri=waves.uri)
        with Image.open(path) as picture:
            assert picture.format == "PNG"
    assert {"train/mse", "val/mse"} <= set(found.data.metrics)


def test_evaluate_repeats_what_the_run_reported(waves: Waves, command: Command) -> None:
    code, out, err = command("evaluate", "models:/waves@champion", "--tracking-uri", waves.uri, "--episodes", "8")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert len(lines) == 5 and set(lines) <= set(waves.ended.out.splitlines())
    assert re.fullmatch(rf"meta-test mse: {ESTIMATE}", lines[-1])
    options = ("--tracking-uri", waves.uri, "--episodes", "8", "--json")
    _, out, _ = command("evaluate", "models:/waves@champion", *options)
    found = json.loads(out)
    assert found["quality"] == "mse" and lines[-1] == f"meta-test mse: {Estimate(**found['mse'])}"


def test_a_loaded_learner_adapts_to_numbers(waves: Waves) -> None:
    learner = metaray.load("models:/waves@champion", tracking_uri=waves.uri)
    found = learner.adapt([-1.0, 0.0, 2.0], [0.5, 1.0, -1.0]).predict([3.0, 1.0])
    assert isinstance(found, np.ndarray) and found.shape == (2,) and np.isfinite(found).all()


def test_adapt_to_tables(waves: Waves, adapt: Command, tmp_path: Path) -> None:
    learner = metaray.load("models:/waves@champion", tracking_uri=waves.uri)
    expected = learner.adapt([-1.0, 0.0, 2.0], [0.5, 1.0, -1.0]).predict_values([3.0, 1.0])
    picture = tmp_path / "new" / "fit.png"
    code, out, err = adapt("--query", tmp_path / "query.csv", "--picture", picture)
    assert (code, err) == (0, "")
    head, *rows, drawn = out.splitlines()
    assert head.split() == ["x", "y"] and drawn == f"picture: {picture}" and picture.is_file()
    assert [row.split() for row in rows] == [["3", f"{expected[0]:.6g}"], ["1", f"{expected[1]:.6g}"]]
    code, out, _ = adapt("--query", tmp_path / "query.csv", "--json")
    assert json.loads(out) == [{"x": 3, "y": float(expected[0])}, {"x": 1, "y": float(expected[1])}]


def test_adapt_to_tables_with_columns_of_real_names(adapt: Command, tmp_path: Path) -> None:
    _, plain, _ = adapt("--query", tmp_path / "query.csv")
    for name in ("support", "query"):
        path = tmp_path / f"{name}.csv"
        head, *rows = path.read_text().splitlines()
        renamed = head.replace("x", "age").replace("y", "dose")
        path.write_text("\n".join([f"{renamed},note", *(f"{row},kept" for row in rows)]))
    code, out, err = adapt("--query", tmp_path / "query.csv", "--x", "age", "--y", "dose")
    assert (code, err) == (0, "")
    assert [line.split() for line in out.splitlines()[1:]] == [line.split() for line in plain.splitlines()[1:]]
    assert out.split()[:2] == ["age", "dose"]
    code, _, err = adapt("--query", tmp_path / "query.csv")
    assert code == 2 and "lacks the column 'x'; its first line is" in err


def test_adapt_where_the_truth_is_known(adapt: Command, tmp_path: Path) -> None:
    code, out, err = adapt("--query", tmp_path / "support.csv", "--inner-steps", "0")
    before = float(out.splitlines()[-1].removeprefix("mse: "))
    _, out, _ = adapt("--query", tmp_path / "support.csv", "--inner-steps", "50")
    assert (code, err) == (0, "") and float(out.splitlines()[-1].removeprefix("mse: ")) < before


def test_the_truth_in_json(adapt: Command, tmp_path: Path) -> None:
    rows = json.loads(adapt("--query", tmp_path / "support.csv", "--json").out)
    assert [row["target"] for row in rows] == [0.5, 1, -1]
    for row in rows:
        assert set(row) == {"x", "y", "target", "squared_error"}
        assert row["squared_error"] == pytest.approx((row["y"] - row["target"]) ** 2)


@pytest.mark.parametrize("name", ["points.CSV", "points.txt", "points"])
def test_tables_of_any_name(name: str, waves: Waves, adapt: Command, command: Command, tmp_path: Path) -> None:
    expected = adapt("--query", tmp_path / "query.csv").out
    (tmp_path / "support.csv").rename(tmp_path / name)
    places = ("--support", tmp_path / name, "--query", tmp_path / "query.csv", "--tracking-uri", waves.uri)
    assert command("adapt", "models:/waves@champion", *places) == (0, expected, "")


def test_a_picture_is_checked_first(adapt: Command, tmp_path: Path) -> None:
    code, _, err = adapt("--query", tmp_path / "query.csv", "--picture", tmp_path / "query.csv" / "fit.png")
    assert code == 2 and "fit.png: can't write to the folder" in err


def test_adapt_says_what_is_wrong(waves: Waves, adapt: Command, command: Command, trained: Any, tmp_path: Path) -> None:
    (tmp_path / "query.csv").write_text("x\nmany\n")
    code, _, err = adapt("--query", tmp_path / "query.csv")
    assert code == 2 and err.endswith("query.csv, line 2: x is 'many', not a number\n")
    (tmp_path / "task" / "a").mkdir(parents=True)
    Image.new("L", (4, 4)).save(tmp_path / "task" / "a" / "1.png")
    places = ("--tracking-uri", waves.uri, "--support", tmp_path / "task", "--query", tmp_path / "task")
    code, _, err = command("adapt", "models:/waves@champion", *places)
    assert code == 2 and "give CSV files with the columns x,y" in err
    places = ("--tracking-uri", trained.uri, "--support", tmp_path / "support.csv", "--query", tmp_path / "support.csv")
    code, _, err = command("adapt", "models:/tiny@champion", *places)
    assert code == 2 and "takes a folder with a folder of images per class" in err


def test_the_lower_error_becomes_champion(make_waves: MakeExperiment, database: str, tmp_path: Path) -> None:
    """Three versions: one that knows nothing, by order; one that is better; and one that is worse again."""
    lines = make_waves().source.model_copy(update={"family": "line", "slope": (1.0, 1.1), "intercept": (2.0, 2.1)})
    base = make_waves(name="waves-contest", source=lines, optimizer=Optimizer(outer_lr=0.03))
    decisions = []
    for steps in (0, 60, 1):
        report = train(
            base.model_copy(update={"num_steps": steps}),
            storage=str(tmp_path / "runs"),
            tracking_uri=database,
            promote=steps == 0,
            progress=False,
        )
        assert report.decision is not None
        decisions.append(report.decision)
    assert [decision.promote for decision in decisions] == [True, True, False]
    assert "meta-val mse difference to version 1: -" in decisions[1].reason
    assert "meta-val mse difference to version 2: +" in decisions[2].reason
    present = champion(MlflowServer(database), "waves-contest")
    assert present is not None and present.version == 2


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            "episodes.ways=5",
            "episodes.ways: function_family yields regression tasks, and these have 1 way (got 5)",
        ),
        (
            "algorithm.kind=protonet",
            "algorithm protonet works with classes, but regression tasks have none",
        ),
        ("source.amplitude=[5,1]", "a range goes from its lower to its upper end (got 5 to 1)"),
    ],
)
def test_wrong_settings(setting: str, message: str, waves: Waves, command: Command) -> None:
    code, out, err = command(*waves.arguments[:2], "--storage", str(waves.storage), "--set", setting)
    assert (code, out) == (2, "") and message in err


def test_results_of_before_are_read(waves: Waves) -> None:
    result = Result.from_json((waves.storage / "first-waves" / "result.json").read_text())
    tree = json.loads(result.to_json())
    del tree["quality"]
    assert Result.from_json(json.dumps(tree)) == dataclasses.replace(result, quality="accuracy")


def test_a_learner_of_classes_is_not_judged_on_functions(trained: Any, make_waves: MakeExperiment) -> None:
    from metaray.api.evaluate import evaluate

    learner = str(trained.storage / "first" / "learner")
    settings = ["source.kind=function_family", "episodes.ways=1"]
    with pytest.raises(
        InputError, match="the learner is for classification tasks, the source yields regression tasks of 1 value"
    ):
        evaluate(learner, episodes=2, part="meta-test", settings=settings, tracking_uri=None, trust=[])
