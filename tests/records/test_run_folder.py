"""Run identity: a name means one experiment."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from metaray.data import ClassStore
from metaray.data.store_file import read_store, write_store
from metaray.errors import InputError
from metaray.experiment.experiment import Experiment
from metaray.manifest import sealed_json, unsealed_json
from metaray.models import Conv4
from metaray.records.run_folder import find_run, open_run, record_run
from metaray.records.storage import Storage

MakeExperiment = Callable[..., Experiment]


@pytest.fixture
def root(tmp_path: Path) -> Storage:
    return Storage(str(tmp_path))


def test_a_new_name(root: Storage, make_experiment: MakeExperiment) -> None:
    folder = open_run(root, make_experiment(), "first.run_1")
    assert (folder.name, folder.tracking_run, folder.result) == ("first.run_1", None, None)
    assert folder.storage.root == f"{root.root}/first.run_1" and root.names() == []


def test_without_a_name_each_run_is_new(root: Storage, make_experiment: MakeExperiment) -> None:
    one, two = (open_run(root, make_experiment(), None).name for _ in range(2))
    assert one != two and one.startswith("tiny-20")


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "a b", "a\n", "-x", "ü"])
def test_malformed_names(name: str, root: Storage, make_experiment: MakeExperiment) -> None:
    with pytest.raises(InputError, match=r"run name .*: use letters, digits, '\.', '_' and '-'"):
        open_run(root, make_experiment(), name)


def test_the_same_experiment_goes_on(root: Storage, make_experiment: MakeExperiment) -> None:
    experiment = make_experiment(algorithm={"kind": "maml", "inner_lr": {"head.*": 0.5, "*": 0.1}})
    record_run(open_run(root, experiment, "run"), experiment, "tracking-id")
    assert open_run(root, experiment, "run").tracking_run == "tracking-id"


def test_a_run_of_before_a_field_was_there_goes_on(root: Storage, make_experiment: MakeExperiment) -> None:
    experiment = make_experiment(model=Conv4(channels=4))
    record_run(open_run(root, experiment, "run"), experiment, "tracking-id")
    record = unsealed_json(root.read("run/run.json"), where="run.json")
    del record["experiment"]["model"]["pools"], record["experiment"]["chunk_size"]
    root.write("run/run.json", json.dumps(record).encode())
    assert open_run(root, experiment, "run").tracking_run == "tracking-id"
    with pytest.raises(InputError, match=r"another --run name:\n  model.pools: 4 -> 2$"):
        open_run(root, make_experiment(model=Conv4(channels=4, pools=2)), "run")
    record["experiment"]["model"]["kind"] = "gone"
    root.write("run/run.json", sealed_json(record))
    with pytest.raises(InputError, match=r"\n  model.kind: gone -> conv4"):
        open_run(root, experiment, "run")


def test_a_changed_experiment_is_refused_with_the_difference(root: Storage, make_experiment: MakeExperiment) -> None:
    experiment = make_experiment()
    record_run(open_run(root, experiment, "run"), experiment, "id")
    with pytest.raises(
        InputError, match=r"run 'run' exists with another experiment.*\n  num_steps: 6 -> 9\n  seed: 0 -> 1$"
    ):
        open_run(root, make_experiment(num_steps=9, seed=1), "run")
    assert root.names() == ["run"] and root.names("run") == ["run.json"]


def test_changed_data_is_refused(
    root: Storage, make_experiment: MakeExperiment, tiny_store: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.arrow"
    copy.write_bytes(tiny_store.read_bytes())
    experiment = make_experiment(source=ClassStore(path=str(copy)))
    record_run(open_run(root, experiment, "run"), experiment, "id")
    record = unsealed_json(root.read("run/run.json"), where="run.json")
    root.write("run/run.json", sealed_json(record | {"source_fingerprint": "0" * 64}))
    with pytest.raises(
        InputError, match=r"started on other data: the source's fingerprint was 000000000000\.\.\., now"
    ):
        open_run(root, experiment, "run")


def test_data_imported_anew_with_other_content_are_refused(
    root: Storage, make_experiment: MakeExperiment, tiny_store: Path, tmp_path: Path
) -> None:
    path = tmp_path / "copy.arrow"
    path.write_bytes(tiny_store.read_bytes())
    experiment = make_experiment(source=ClassStore(path=str(path)))
    record_run(open_run(root, experiment, "run"), experiment, "id")
    found = read_store(path)
    about = {"counts": found.meta.counts, "class_names": found.meta.class_names, "schemes": found.meta.schemes}
    other = found.images.copy()
    other[0] ^= 1
    write_store(path, images=other, preprocessing=found.meta.preprocessing, origin={}, **about)
    with pytest.raises(InputError, match=r"run 'run' was started on other data: .*; bring those data back, or use an"):
        open_run(root, experiment, "run")
    path.write_bytes(tiny_store.read_bytes())
    assert open_run(root, experiment, "run").tracking_run == "id"


def test_a_run_that_does_not_say_its_data_is_taken(root: Storage, make_experiment: MakeExperiment) -> None:
    experiment = make_experiment()
    record_run(open_run(root, experiment, "run"), experiment, "id")
    record = unsealed_json(root.read("run/run.json"), where="run.json")
    del record["source_fingerprint"]
    root.write("run/run.json", json.dumps(record).encode())
    assert open_run(root, experiment, "run").fingerprint == ""


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "not JSON"),
        ("[]", "is not a JSON object"),
        ("{}", "experiment is missing; tracking_run is missing"),
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
        open_run(root, make_experiment(), "run")
    with pytest.raises(InputError, match=told):
        find_run(root, "run")


def test_what_a_run_was_is_found_again(root: Storage, make_experiment: MakeExperiment) -> None:
    experiment = make_experiment(seed=3)
    record_run(open_run(root, experiment, "run"), experiment, "id", {"metaray.command": "metaray train"})
    found, folder = find_run(root, "run")
    assert found == experiment and (folder.name, folder.tracking_run) == ("run", "id")
    assert folder.tags == {"metaray.command": "metaray train"} == open_run(root, experiment, "run").tags
    assert folder.storage.root == f"{root.root}/run"


@pytest.mark.parametrize("name", ["rum", "../run", "", "run/."])
def test_there_is_no_such_run(name: str, root: Storage, make_experiment: MakeExperiment) -> None:
    record_run(open_run(root, make_experiment(), "run"), make_experiment(), "id")
    root.write("no-run/file", b"")
    with pytest.raises(InputError, match=r"unknown run in .*Known: run\.$"):
        find_run(root, name)


def test_a_run_is_held_by_one_process(root: Storage, make_experiment: MakeExperiment) -> None:
    one, two = (open_run(root, make_experiment(), "run") for _ in range(2))
    with one.held():
        with (
            pytest.raises(InputError, match=rf"run is in use by process {os.getpid()} on host .* since 20"),
            two.held(),
        ):
            raise AssertionError("two holders")
        with open_run(root, make_experiment(), "other").held():
            pass
    with two.held():
        pass
