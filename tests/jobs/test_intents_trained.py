"""What meta-training gains over a frozen encoder: chosen on validation classes, judged once, and gone on with."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs import intents as recipes
from jobs.benchmarks import intents_trained, intents_training
from jobs.benchmarks.intents import FOLDS
from jobs.benchmarks.intents_training import Given, Job, experiment_of, frozen, judged, run, store_of
from metaray.algorithms import ProtoNet
from metaray.config import replace
from metaray.data.preprocessing import TextPreprocessing
from metaray.models import Encoder, LoRA
from metaray.training.outer_loop import initial_state
from tests.jobs.test_intents import home
from tests.models.encoders.tiny import bert_folder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return bert_folder(tmp_path_factory.mktemp("encoders") / "tiny")


@pytest.fixture(scope="module")
def scratch(encoder: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stores of texts and of vectors."""
    folder = tmp_path_factory.mktemp("trained")
    data = home(folder / "data")
    tokenizer = Path(encoder, "tokenizer.json").read_text()
    given = Given(folder / "scratch", encoder, (), 4, 4)
    intents_trained.prepare(given, data, ["hwu64"], TextPreprocessing(tokenizer=tokenizer, longest=8))
    return given.scratch


@pytest.fixture
def given(encoder: str, scratch: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Given:
    """Two quick settings, on a tiny encoder in the place of the one that recipes are for."""
    tiny = Encoder(path=encoder)
    model = LoRA(model=tiny, targets=recipes.ATTENTION, rank=2)
    made = recipes.lora_protonet()
    monkeypatch.setattr(recipes, "lora_protonet", lambda: replace(made, model=model))
    settings = {"map": ("map_protonet",), "lora": ("lora_protonet", "optimizer.outer_lr=0.01")}
    monkeypatch.setattr(intents_training, "SETTINGS", settings)
    for what in ("texts", "vectors"):
        store_of(tmp_path, "hwu64", what).symlink_to(store_of(scratch, "hwu64", what))
    quick = ("num_steps=2", "meta_batch_size=1", "episodes.ways=3", "evaluation.every=1")
    return Given(tmp_path, encoder, quick, 6, 8)


def test_frozen_is_the_encoder_before_training(given: Given) -> None:
    """On texts as on vectors, and on the same episodes: what nothing was trained of is the frozen row."""
    for setting in ("map", "lora"):
        job = Job("hwu64", "02", setting, "meta-val")
        experiment = experiment_of(given, job)
        assert isinstance(experiment.algorithm, ProtoNet)
        state = initial_state(experiment, intents_training.CPU)
        meta = {name: tensor.detach() for name, tensor in state.meta.items()}
        one, other = judged(experiment, state, meta, "meta-val", 6), frozen(given, job, experiment, 6)
        # Distances and cosines round differently, where a query lies between two classes.
        assert np.isclose(one, other, atol=1e-3).sum() >= 5 and np.abs(one - other).max() < 4.1, "one query of 25"
        assert 20 < one.mean() < 100


def test_a_result_is_made_once(given: Given) -> None:
    job = Job("hwu64", "01", "lora", "meta-test")
    place = run(given, job)
    record = json.loads(place.read_text())
    assert record["episodes"] == 8 and record["meta_val"].keys() == {"1", "2"} and record["best_step"] in (1, 2)
    assert record["gain"] == pytest.approx(record["trained"] - record["frozen"])
    assert record["parameters"] == 2 * 2 * 2 * 8 * 2 and record["experiment"]["source"]["split"] == "01"
    place.write_text("{}")
    assert run(given, job) == place and place.read_text() == "{}", "left alone"


def fake(scratch: Path, split: str, gains: dict[tuple[str, str, str], float]) -> None:
    (scratch / "results").mkdir(exist_ok=True)
    for (name, fold, setting), gain in gains.items():
        record: dict[str, Any] = {"name": name, "fold": fold, "setting": setting, "split": split, "gain": gain}
        record |= {"frozen": 80.0, "trained": 80 + gain, "gain_interval_over_episodes": 1.0, "train_cpu_s": 2.0}
        place = Job(name, fold, setting, split).place(scratch)  # type: ignore[arg-type]
        place.write_text(json.dumps(record))


def test_one_setting_for_all_sets_is_chosen_and_judged_once(tmp_path: Path) -> None:
    given, names = Given(tmp_path, "", (), 4, 4), ["banking77", "hwu64"]
    with pytest.raises(SystemExit, match="no setting was tried on the first folds"):
        intents_trained.judge_jobs(given, names, ["01"])
    tried = {("banking77", "01", "map 3e-4"): 3.0, ("hwu64", "01", "map 3e-4"): -2.0, ("hwu64", "01", "lora 5e-4"): 9.0}
    tried |= {(name, fold, "lora 2e-4"): 1.0 for name in names for fold in ("01", "02")}
    fake(tmp_path, "meta-val", tried)
    jobs = intents_trained.judge_jobs(given, names, ["01", "02"])
    assert {job.setting for job in jobs} == {"lora 2e-4"} and len(jobs) == 4
    folds = dict(zip(FOLDS, (1.0, 2.0, 3.0, 4.0, 5.0), strict=True))
    fake(tmp_path, "meta-test", {("hwu64", fold, "lora 2e-4"): gain for fold, gain in folds.items()})
    found = intents_trained.reported(given, names)
    assert (found["chosen"], len(found["tried"]), list(found["sets"])) == ("lora 2e-4", 7, ["hwu64"])
    assert found["sets"]["hwu64"]["gain"] == 3.0
    assert found["sets"]["hwu64"]["gain_interval_over_folds"] == pytest.approx(2.776445 * 2.5**0.5 / 5**0.5, abs=0.01)
    fake(tmp_path, "meta-val", {(name, fold, "map 1e-3"): 50.0 for name in names for fold in ("01", "02")})
    with pytest.raises(SystemExit, match="judged already, with lora 2e-4: that is done once"):
        intents_trained.judge_jobs(given, names, ["01"])


def test_the_command_reports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake(tmp_path, "meta-val", {("hwu64", fold, "map 3e-4"): 1.0 for fold in ("01", "02")})
    out = tmp_path / "trained.json"
    asked = ["report", "--scratch", str(tmp_path), "--sets", "hwu64", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["intents_trained", *asked])
    intents_trained.main()
    assert json.loads(out.read_text())["chosen"] == "map 3e-4" and capsys.readouterr().out == ""
