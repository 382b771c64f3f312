"""Run identity: a name means one experiment."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from metaray.data import ClassStore
from metaray.data.store_file import read_store, write_store
from metaray.errors import InputError
from metaray.experiment.experiment import Experiment
from metaray.manifest import sealed_json, unsealed_json
from metaray.models import Conv4
from metaray.records.run import Run
from metaray.records.storage import Storage
from tests.training.whole_runs import train

MakeExperiment = Callable[..., Experiment]


@pytest.fixture
def root(tmp_path: Path) -> Storage:
    return Storage(str(tmp_path))


def test_a_new_name(root: Storage, make_experiment: MakeExperiment) -> None:
    folder = Run.of(root, make_experiment(), "first.run_1")
    assert (folder.name, folder.tracking_run, folder.is_finished) == ("first.run_1", None, False)
    assert folder.storage.root == f"{root.root}/first.run_1" and root.names() == []


def test_without_a_name_each_run_is_new(root: Storage, make_experiment: MakeExperiment) -> None:
    one, two = (Run.of(root, make_experiment(), None).name for _ in range(2))
    assert one != two and one.startswith("tiny-20")


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "a b", "a\n", "-x", "ü"])
def test_malformed_names(name: str, root: Storage, make_experiment: MakeExperiment) -> None:
    with pytest.raises(InputError, match=r"run name .*: use letters, digits, '\.', '_' and '-'"):
        Run.of(root, make_experiment(), name)


def test_the_same_experiment_goes_on(root: Storage, make_experiment: MakeExperiment) -> None:
    experiment = make_experiment(algorithm={"kind": "maml", "inner_lr": {"head.*": 0.5, "*": 0.1}})
    Run.of(root, experiment, "run").begin(experiment, tags={}, tracking_run="tracking-id")
    assert Run.of(root, experiment, "run").tracking_run == "tracking-id"


def test_a_run_of_before_a_field_was_there_goes_on(root: Storage, make_experiment: MakeExperiment) -> None:
    experiment = make_experiment(model=Conv4(channels=4))
    Run.of(root, experiment, "run").begin(experiment, tags={}, tracking_run="tracking-id")
    record = unsealed_json(root.read("run/run.json"), where="run.json")
    del record["experiment"]["model"]["pools"], record["experiment"]["chunk_size"]
    root.write("run/run.json", json.dumps(record).encode())
    assert Run.of(root, experiment, "run").tracking_run == "tracking-id"
    with pytest.raises(InputError, match=r"another --run name:\n  model.pools: 4 -> 2$"):
        Run.of(root, make_experiment(model=Conv4(channels=4, pools=2)), "run")
    record["experiment"]["model"]["kind"] = "gone"
    root.write("run/run.json", sealed_json(record))
    with pytest.raises(InputError, match=r"\n  model.kind: gone -> conv4"):
        Run.of(root, experiment, "run")


def test_a_changed_experiment_is_refused_with_the_difference(root: Storage, make_experiment: MakeExperiment) -> None:
    experiment = make_experiment()
    Run.of(root, experiment, "run").begin(experiment, tags={}, tracking_run="id")
    with pytest.raises(
        InputError, match=r"run 'run' exists with another experiment.*\n  num_steps: 6 -> 9\n  seed: 0 -> 1$"
    ):
        Run.of(root, make_experiment(num_steps=9, seed=1), "run")
    assert root.names() == ["run"] and root.names("run") == ["run.json"]


def test_changed_data_is_refused(
    root: Storage, make_experiment: MakeExperiment, tiny_store: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.arrow"
    copy.write_bytes(tiny_store.read_bytes())
    experiment = make_experiment(source=ClassStore(path=str(copy)))
    Run.of(root, experiment, "run").begin(experiment, tags={}, tracking_run="id")
    record = unsealed_json(root.read("run/run.json"), where="run.json")
    root.write("run/run.json", sealed_json(record | {"source_fingerprint": "0" * 64}))
    with pytest.raises(
        InputError, match=r"started on other data: the source's fingerprint was 000000000000\.\.\., now"
    ):
        Run.of(root, experiment, "run")


def test_data_imported_anew_with_other_content_are_refused(
    root: Storage, make_experiment: MakeExperiment, tiny_store: Path, tmp_path: Path
) -> None:
    path = tmp_path / "copy.arrow"
    path.write_bytes(tiny_store.read_bytes())
    experiment = make_experiment(source=ClassStore(path=str(path)))
    Run.of(root, experiment, "run").begin(experiment, tags={}, tracking_run="id")
    found = read_store(path)
    about: dict[str, Any] = {
        "counts": found.meta.counts,
        "class_names": found.meta.class_names,
        "schemes": found.meta.schemes,
    }
    other = found.examples.copy()
    other[0] ^= 1
    write_store(path, examples=other, preprocessing=found.meta.preprocessing, origin={}, **about)
    with pytest.raises(InputError, match=r"run 'run' was started on other data: .*; bring those data back, or use an"):
        Run.of(root, experiment, "run")
    path.write_bytes(tiny_store.read_bytes())
    assert Run.of(root, experiment, "run").tracking_run == "id"


def test_a_run_that_does_not_say_its_data_is_taken(root: Storage, make_experiment: MakeExperiment) -> None:
    experiment = make_experiment()
    Run.of(root, experiment, "run").begin(experiment, tags={}, tracking_run="id")
    record = unsealed_json(root.read("run/run.json"), where="run.json")
    del record["source_fingerprint"]
    root.write("run/run.json", json.dumps(record).encode())
    assert Run.of(root, experiment, "run").record.source_fingerprint == ""


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "not JSON"),
        ("[]", "is not a JSON object"),
        ("{}", "experiment is missing"),
        ('{"experiment": [], "tracking_run": "id"}', "experiment: Input should be a valid dictionary"),
        ('{"experiment": {}, "tracking_run": 3}', "tracking_run: Input should be a valid string"),
        ('{"experiment": ' + '{"a":' * 5000, "nested more than"),
        ('{"experiment": {"seed": ' + "9" * 5000 + "}}", "an integer of 5000 digits"),
        (r'{"experiment": {"name": "a\u0000"}}', "a NUL character"),
        ('{"experiment": {}, "experiment": {}}', "comes twice"),
    ],
)
def test_a_record_that_is_none(text: str, what: str, root: Storage, make_experiment: MakeExperiment) -> None:
    root.write("run/run.json", text.encode())
    told = f"{root.root}/run/run.json.*{what}.*; restore it from a copy, or train under another --run name"
    with pytest.raises(InputError, match=told):
        Run.of(root, make_experiment(), "run")
    with pytest.raises(InputError, match=told):
        Run.find(root, "run").experiment()


def test_what_a_run_was_is_found_again(root: Storage, make_experiment: MakeExperiment) -> None:
    experiment = make_experiment(seed=3)
    Run.of(root, experiment, "run").begin(experiment, tags={"metaray.command": "metaray train"}, tracking_run="id")
    folder = Run.find(root, "run")
    assert folder.experiment() == experiment and (folder.name, folder.tracking_run) == ("run", "id")
    assert folder.record.tags == {"metaray.command": "metaray train"}
    assert folder.storage.root == f"{root.root}/run"


@pytest.mark.parametrize("name", ["rum", "../run", "", "run/."])
def test_there_is_no_such_run(name: str, root: Storage, make_experiment: MakeExperiment) -> None:
    Run.of(root, make_experiment(), "run").begin(make_experiment(), tags={}, tracking_run="id")
    root.write("no-run/file", b"")
    with pytest.raises(InputError, match=r"unknown run in .*Known: run\.$"):
        Run.find(root, name)


def test_a_run_is_held_by_one_process(root: Storage, make_experiment: MakeExperiment) -> None:
    one, two = (Run.of(root, make_experiment(), "run") for _ in range(2))
    with one.held():
        with (
            pytest.raises(InputError, match=rf"run is in use by process {os.getpid()} on host .* since 20"),
            two.held(),
        ):
            raise AssertionError("two holders")
        with Run.of(root, make_experiment(), "other").held():
            pass
    with two.held():
        pass


def test_the_last_segment_of_a_finished_run_is_missed(tmp_path: Path, make_experiment: MakeExperiment) -> None:
    """No checkpoint counts it."""
    run = Run.of(Storage(str(tmp_path)), make_experiment(), "run")
    run.begin(make_experiment(), tags={})
    train(make_experiment(), run.storage)
    assert run.is_finished and not run.notes()
    last = max((tmp_path / "run" / "metrics").iterdir())
    last.unlink()
    lost = "metrics lacks the scores that result.json has: its last segment is missing"
    assert run.notes() == (f"{run.storage.shown}/{lost}",)
