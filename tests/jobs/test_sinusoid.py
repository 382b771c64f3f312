"""The sinusoid recipes and their benchmark."""

import json
import re
import sys
from pathlib import Path

import pytest

from jobs.benchmarks import sinusoid as benchmark
from jobs.benchmarks.sinusoid import INNER_STEPS, RECIPES, page, planned, row
from metaray.algorithms import ALGORITHMS
from metaray.config import replace
from metaray.errors import InputError
from metaray.experiment.experiment import Evaluation, Experiment
from metaray.records.provenance import provenance
from metaray.training.checks.preflight import preflight


def test_every_algorithm_of_regression_has_a_recipe() -> None:
    able = {kind for kind, algorithm in ALGORITHMS.items() if not algorithm.needs_classes} - {"nearest_neighbor"}
    assert set(RECIPES) == able | {"oracle"}
    assert {recipe().algorithm.kind for recipe in RECIPES.values()} == able


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_share_their_tasks(name: str) -> None:
    base, experiment = RECIPES["maml"](), RECIPES[name]()
    assert (experiment.eval_spec, experiment.model, experiment.episodes) == (base.eval_spec, base.model, base.episodes)
    assert experiment.source == base.source or name == "oracle"
    assert experiment.evaluation.test_episodes >= 600 and experiment.evaluation.seed == base.evaluation.seed
    preflight(replace(experiment, num_steps=1))


RECORDED = {"batch_norm": "transductive"}


def test_the_paper_s_numbers() -> None:
    experiment = RECIPES["maml"]()
    assert experiment.algorithm == ALGORITHMS["maml"].parse(
        {**RECORDED, "inner_lr": 0.01, "inner_steps": 1}, where="maml"
    )
    assert (experiment.episodes.shots, experiment.meta_batch_size) == (10, 25)


def small(name: str, *, seed: int, steps: int | None) -> Experiment:
    experiment = planned(name, seed=seed, steps=steps)
    evaluation = Evaluation(episodes=experiment.episodes, inner_steps=experiment.evaluation.inner_steps, every=1)
    return replace(experiment, evaluation=replace(evaluation, val_episodes=4, test_episodes=5))


def test_the_benchmark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(benchmark, "planned", small)
    read: list[str] = []

    def noted() -> dict[str, str]:
        read.append("once")
        return provenance()

    monkeypatch.setattr(benchmark, "provenance", noted)
    for names in (["maml", "cnp"], ["oracle"]):
        arguments = ["--algorithms", *names, "--steps", "2", "--seed", "3", "--out", str(tmp_path)]
        monkeypatch.setattr(sys, "argv", ["sinusoid.py", *arguments])
        benchmark.main()
    assert len(read) == 2, "once a call, whatever the number of recipes"
    assert not list(tmp_path.rglob("*.new"))
    records = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "sinusoid").glob("*.json")}
    assert set(records) == {"maml", "cnp", "oracle"}
    assert set(records["maml"]["mse"]) == set(map(str, INNER_STEPS))
    assert set(records["cnp"]["mse"]) == {"-"} and set(records["oracle"]["mse"]) == {"0"}
    for name, record in records.items():
        assert (record["num_steps"], record["episodes"], record["seed"]) == (2, 50, 3)
        assert record["command"] == f"python -m jobs.benchmarks.sinusoid --algorithms {name} --steps 2 --seed 3"
        assert record["experiment"]["name"] == f"sinusoid-{name}"
        assert all(estimate["episodes"] == 5 for estimate in record["mse"].values())
    text = (tmp_path / "sinusoid.md").read_text()
    assert text == page(list(records.values()))
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len(table) == 5 and len({line.count("|") for line in table}) == 1
    assert row(records["cnp"]) in table and "| cnp | " in capsys.readouterr().out
    assert "(sinusoid/maml.png)" in text and (tmp_path / "sinusoid" / "maml.png").is_file()
    assert re.search(r"- maml: `python -m .*chosen by meta-val after 10 inner steps .*commit ", text)


def test_an_edited_recipe_has_a_folder_of_its_own() -> None:
    experiment = planned("maml", seed=3, steps=2)
    edited = replace(experiment, meta_batch_size=7)
    names = [benchmark.folder_of("maml", one) for one in (experiment, edited, planned("maml", seed=3, steps=2))]
    assert names[0] == names[2] != names[1]
    assert all(re.fullmatch(r"maml-2steps-seed3-[0-9a-f]{12}", name) for name in names)


def test_the_best_comes_first() -> None:
    estimate = {"mean": 1.0, "half_width": 0.1, "episodes": 600}
    record = {
        "recipe": "a",
        "mse": {"0": estimate, "10": estimate | {"mean": 0.2}},
        "chosen_after": None,
        "before_training": estimate,
        "nearest_neighbor": estimate,
        "meta_val": estimate,
        "best_step": 1,
        "num_steps": 2,
        "episodes": 5000,
        "training_s": 1.4,
        "protocol": "10-shot, 100 queries",
        "seed": 0,
        "command": "c",
        "commit": "abc",
        "dirty": "true",
        "torch": "2",
        "device": "CPU",
        "parameters_sha256": "0123456789abcdef",
    }
    other = record | {"recipe": "b", "mse": {"-": estimate | {"mean": 0.1}}}
    lines = [line for line in page([record, other]).splitlines() if line.startswith(("| a", "| b"))]
    assert lines == [
        "| b | 0.1000 +- 0.1000 |  |  |  |  | 5,000 | 1 |",
        "| a |  | 1.0000 +- 0.1000 |  |  | 0.2000 +- 0.1000 | 5,000 | 1 |",
    ]
    assert "commit abc, with changes" in page([record])


def test_an_unknown_recipe() -> None:
    with pytest.raises(InputError, match="Did you mean 'maml'"):
        planned("mamml", seed=0, steps=None)
