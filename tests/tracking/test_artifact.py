"""Learner folders into the registry and out of it."""

from pathlib import Path

import pandas as pd
import pytest

from metaray.errors import InputError
from metaray.tracking.artifact import LOADER, download, register
from metaray.tracking.mlflow_run import MlflowRun
from metaray.tracking.registry import find_version, set_alias
from metaray.tracking.server import MlflowServer

INPUTS = [("role", "string", True), ("label", "string", False), ("image", "binary", True)]
OUTPUTS = [("label", "string", True), ("probability", "double", True)]


@pytest.fixture(scope="module")
def registered(server: MlflowServer, learner_folder: Path) -> str:
    """A run with one registered learner, `models:/kept/1`, which is also @champion."""
    run = MlflowRun.create(server, "tests", "registers", {}, {})
    example = pd.DataFrame({"role": ["support", "query"], "label": ["a", ""], "image": [b"\x89PNG", b"\x89PNG"]})
    before = set(Path.cwd().iterdir())
    arguments = {"inputs": INPUTS, "outputs": OUTPUTS, "input_example": example, "tags": {"protocol": "5w1s"}}
    assert register(server, run.id, name="kept", learner_folder=learner_folder, **arguments) == 1  # type: ignore[arg-type]
    assert set(Path.cwd().iterdir()) == before  # MLflow's global default would be a database right here
    set_alias(server, "kept", 1)
    return run.id


def files_of(server: MlflowServer) -> dict[str, bytes]:
    folder = Path(find_version(server, "kept", 1).source.removeprefix("file://"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.usefixtures("registered")
def test_the_artifact_holds_no_pickle_and_no_code(server: MlflowServer) -> None:
    files = files_of(server)
    assert set(files) == {
        "MLmodel",
        "conda.yaml",
        "python_env.yaml",
        "requirements.txt",
        "input_example.json",
        "serving_input_example.json",
        "data/learner/learner.json",
        "data/learner/parameters.safetensors",
    }
    for name, content in files.items():
        assert not name.endswith((".pkl", ".pickle", ".py", ".pyc", ".pt", ".pth", ".joblib")), name
        assert "python_model" not in name
        assert not content.startswith((b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK\x03\x04")), name
        assert b"pickle" not in content, name


@pytest.mark.usefixtures("registered")
def test_the_description_names_loader_signature_and_requirements(server: MlflowServer) -> None:
    from mlflow.models import Model

    model = Model.load(find_version(server, "kept", 1).source.removeprefix("file://"))
    flavor = model.flavors["python_function"]
    assert (flavor["loader_module"], flavor["data"], flavor["code"]) == (LOADER, "data/learner", None)
    assert model.signature.inputs.input_names() == ["role", "label", "image"]
    assert model.signature.inputs.required_input_names() == ["role", "image"]
    assert model.signature.outputs.input_names() == ["label", "probability"]
    requirements = files_of(server)["requirements.txt"].decode().split()
    assert {line.partition("==")[0] for line in requirements} >= {"metaray", "torch", "safetensors", "mlflow"}
    assert not any("+" in line for line in requirements)


def test_the_run_shows_the_model(server: MlflowServer, registered: str) -> None:
    client = server.client
    outputs = client.get_run(registered).outputs
    assert outputs is not None
    (output,) = outputs.model_outputs
    logged = client.get_logged_model(output.model_id)
    assert (logged.name, logged.status) == ("learner", "READY")
    assert find_version(server, "kept", 1).tags == {"protocol": "5w1s"}


@pytest.mark.parametrize("form", ["models:/kept@champion", "models:/kept/1", "runs:/{run}/learner"])
def test_download(form: str, server: MlflowServer, registered: str, tmp_path: Path, learner_folder: Path) -> None:
    folder = download(server, form.format(run=registered), tmp_path / "new")
    assert {path.name for path in folder.iterdir()} == {path.name for path in learner_folder.iterdir()}
    assert (tmp_path / "new") in folder.parents


def test_download_a_checkpoint_of_a_run(
    server: MlflowServer, tracked: MlflowRun, learner_folder: Path, tmp_path: Path
) -> None:
    tracked.log_file(learner_folder, "checkpoints")
    folder = download(server, f"runs:/{tracked.id}/checkpoints/best", tmp_path)
    assert (folder / "learner.json").is_file()
    with pytest.raises(InputError, match=r"'checkpoints/bets'. Did you mean 'checkpoints/best'"):
        download(server, f"runs:/{tracked.id}/checkpoints/bets", tmp_path)


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ("models:/kept", "write models:/NAME@ALIAS"),
        ("kept@champion", "write models:/NAME@ALIAS"),
        ("models:/kept@champion/data", "write models:/NAME@ALIAS"),
        ("models:/kept/one", "write models:/NAME@ALIAS"),
        ("models://kept/1", "write models:/NAME@ALIAS"),
        ("runs:/{run}", "write models:/NAME@ALIAS"),
        ("models:/kpet@champion", "Did you mean 'kept'"),
        ("models:/kept@chmpion", "Did you mean 'champion'"),
        ("models:/kept/2", r"unknown version of kept '2'. Known: 1\."),
        ("runs:/nosuch/learner", "there is no run 'nosuch'"),
        ("runs:/{run}/lerner", "Did you mean 'learner'"),
        ("runs:/{run}/../../secret", "leads out of run"),
    ],
)
def test_what_can_not_be_downloaded(
    form: str, message: str, server: MlflowServer, registered: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        download(server, form.format(run=registered), tmp_path / "new")
    assert not (tmp_path / "new").exists()


FLAVOR = "flavors:\n  python_function:\n    loader_module: {loader}\n    data: {data}\n"


@pytest.mark.parametrize(
    ("description", "message"),
    [
        (None, "neither an MLmodel nor a learner.json"),
        ("flavors: {}", "has no loader or data"),
        (": : :", "has no loader or data"),
        ("!!python/object/apply:os.mkdir [{made}]", "has no loader or data"),
        (FLAVOR.format(loader="mlflow.sklearn", data="data"), "loaded by 'mlflow.sklearn'"),
        (FLAVOR.format(loader=LOADER, data="../.."), "no folder inside it"),
        (FLAVOR.format(loader=LOADER, data="/etc"), "no folder inside it"),
        (FLAVOR.format(loader=LOADER, data="missing"), "no folder inside it"),
    ],
)
def test_foreign_artifacts(
    description: str | None, message: str, server: MlflowServer, tracked: MlflowRun, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "something").write_text("")
    if description is not None:
        (folder / "MLmodel").write_text(description.replace("{made}", str(tmp_path / "made")))
    tracked.log_file(folder)
    with pytest.raises(InputError, match=message):
        download(server, f"runs:/{tracked.id}/model", tmp_path / "new")
    assert not (tmp_path / "made").exists()


def test_files_that_vanished(server: MlflowServer, tracked: MlflowRun, learner_folder: Path, tmp_path: Path) -> None:
    arguments = {"inputs": OUTPUTS, "outputs": OUTPUTS, "tags": {}}
    example = pd.DataFrame({"label": ["a"], "probability": [1.0]})
    register(server, tracked.id, name="lost", learner_folder=learner_folder, input_example=example, **arguments)  # type: ignore[arg-type]
    source = Path(find_version(server, "lost", 1).source.removeprefix("file://"))
    source.rename(source.with_name("elsewhere"))
    with pytest.raises(InputError, match="the files of 'models:/lost/1' can't be read"):
        download(server, "models:/lost/1", tmp_path)


def test_what_broke_off_is_not_begun_twice(
    server: MlflowServer, tracked: MlflowRun, learner_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = {"inputs": OUTPUTS, "outputs": OUTPUTS, "tags": {}, "name": "broken-off"}
    example = pd.DataFrame({"label": ["a"], "probability": [1.0]})

    def again() -> int:
        return register(server, tracked.id, learner_folder=learner_folder, input_example=example, **arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr("metaray.tracking.artifact._write_model", lambda *arguments: 1 / 0)
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                again()
    assert again() == 1
    outputs = server.client.get_run(tracked.id).outputs
    assert outputs is not None
    assert len(outputs.model_outputs) == 1
