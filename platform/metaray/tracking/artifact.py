"""Learner folders into the registry, and out of it."""

import re
import shutil
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from metaray.errors import InputError, unknown
from metaray.retry import retry
from metaray.serving.columns import MAP, VECTOR
from metaray.tracking.client import error_code, is_transient, summary
from metaray.tracking.registry import find_alias, find_version
from metaray.tracking.server import MlflowServer

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.entities import LoggedModel

LOADER = "metaray.serving.pyfunc"
LOGGED_MODEL = "learner"
NEEDED = ("metaray", "torch", "numpy", "pandas", "pillow", "pydantic", "safetensors")
FORMS = "models:/NAME@ALIAS, models:/NAME/VERSION or runs:/RUN_ID/PATH"

ColumnType = tuple[str, str, bool]
"""A column of a signature: its name, its MLflow type, and whether it is required."""


def register(
    server: MlflowServer,
    run_id: str,
    *,
    name: str,
    learner_folder: Path,
    inputs: Sequence[ColumnType],
    outputs: Sequence[ColumnType],
    input_example: "pd.DataFrame",
    tags: Mapping[str, str],
    metadata: Mapping[str, str | bool] | None = None,
) -> int:
    """Log a learner as a pyfunc model of an MLflow run, and register it as the next version of model `name`.

    Args:
        server: MLflow server with the registry.
        run_id: Id of the MLflow run.
        name: Name of the registered model, which is made if necessary.
        learner_folder: Folder that `Learner.save` wrote.
        inputs: Columns that `predict` takes.
        outputs: Columns that `predict` returns.
        input_example: Example input, stored beside the model.
        tags: Tags of the version.
        metadata: Metadata of the model, beside its signature.

    Returns:
        The number of the new version.

    Raises:
        InputError: If MLflow does not allow the name.
    """
    from mlflow.exceptions import MlflowException

    client = server.client
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error_code(error) == "INVALID_PARAMETER_VALUE":
            raise InputError(f"{name!r} can't name a registered model: {error.message}") from error
        if error_code(error) != "RESOURCE_ALREADY_EXISTS":
            raise
    made = _logged_model(server, run_id)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "model"
        _write_model(folder, made, learner_folder, inputs, outputs, input_example, metadata or {})
        retry(
            lambda: client.log_model_artifacts(made.model_id, str(folder)), on=MlflowException, transient=is_transient
        )
    client.finalize_logged_model(made.model_id, "READY")
    # A source of models:/ID would be looked up at MLflow's global tracking URI, not at this client's.
    source, model_id = made.artifact_location, made.model_id
    new = client.create_model_version(name, source, run_id, tags=dict(tags), model_id=model_id)
    return int(new.version)


def _logged_model(server: MlflowServer, run_id: str) -> "LoggedModel":
    """A model of the run that is to be filled: one that an earlier call left empty, or a new one."""
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus

    client = server.client
    run = client.get_run(run_id)
    place = run.info.experiment_id
    begun = client.search_logged_models(
        [place], filter_string=f"source_run_id = '{run_id}' AND name = '{LOGGED_MODEL}'"
    )
    empty = [model for model in begun if model.status == LoggedModelStatus.PENDING]
    model = empty[0] if empty else client.create_logged_model(place, name=LOGGED_MODEL, source_run_id=run_id)
    if model.model_id not in [output.model_id for output in (run.outputs.model_outputs if run.outputs else [])]:
        client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
    return model


def download(server: MlflowServer, model_uri: str, destination: Path) -> Path:
    """Download a learner from the registry or from a run.

    Args:
        server: MLflow server with the registry.
        model_uri: `models:/NAME@ALIAS`, `models:/NAME/VERSION` or `runs:/RUN_ID/PATH`.
        destination: Path of an empty or new folder.

    Returns:
        The learner's folder, inside `destination`.

    Raises:
        InputError: If the URI is malformed, names nothing (the message lists what exists), or names something other
            than a learner.
    """
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    source = _source(server, model_uri)
    destination.mkdir(parents=True, exist_ok=True)
    try:
        found = retry(
            lambda: download_artifacts(artifact_uri=source, dst_path=str(destination), tracking_uri=server.uri),
            on=MlflowException,
            transient=is_transient,
        )
    except (MlflowException, OSError) as error:
        raise InputError(f"the files of {model_uri!r} can't be read from {source!r}: {summary(error)}") from error
    return _learner_inside(Path(found), model_uri)


def _source(server: MlflowServer, model_uri: str) -> str:
    """The artifact location behind `model_uri`: MLflow itself would ask its global registry URI."""
    if match := re.fullmatch(r"models:/([^/@]+)@([^/@]+)", model_uri):
        return find_alias(server, match[1], match[2]).source
    if match := re.fullmatch(r"models:/([^/@]+)/([0-9]+)", model_uri):
        return find_version(server, match[1], int(match[2])).source
    if match := re.fullmatch(r"runs:/([0-9A-Za-z_-]+)/(.+)", model_uri):
        return _source_in_run(server, match[1], match[2].strip("/"))
    raise InputError(f"{model_uri!r} is not a model URI; write {FORMS}")


def _source_in_run(server: MlflowServer, run_id: str, path: str) -> str:
    from mlflow.exceptions import MlflowException

    client = server.client
    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if is_transient(error):
            raise
        raise InputError(f"there is no run {run_id!r} at {server.shown!r}") from error
    if ".." in PurePosixPath(path).parts:
        raise InputError(f"{path!r} leads out of run {run_id}; write {FORMS}")
    ids = [output.model_id for output in (run.outputs.model_outputs if run.outputs else [])]
    logged = {model.name: model.artifact_location for model in map(client.get_logged_model, ids)}
    if path in logged:
        return str(logged[path])
    parent = str(PurePosixPath(path).parent)
    beside = [str(item.path) for item in client.list_artifacts(run_id, None if parent == "." else parent)]
    if path not in beside:
        raise unknown(f"artifact of run {run_id}:", path, [*beside, *map(str, logged)])
    return f"{str(run.info.artifact_uri).rstrip('/')}/{path}"


def _write_model(
    folder: Path,
    logged: "LoggedModel",
    learner_folder: Path,
    inputs: Sequence[ColumnType],
    outputs: Sequence[ColumnType],
    input_example: "pd.DataFrame",
    metadata: Mapping[str, str | bool],
) -> None:
    """The artifact as MLflow lays it out. Requirements are given, so MLflow does not run the model to infer them."""
    from mlflow.models import Model, ModelSignature
    from mlflow.types import ColSpec, Schema
    from mlflow.types.schema import Array, Map

    with warnings.catch_warnings():  # importing it warns about MLflow's own type hints
        warnings.filterwarnings("ignore", message=".*Any type hint is inferred as AnyType")
        from mlflow.pyfunc import save_model

    def schema(columns: Sequence[ColumnType]) -> Schema:
        kinds = {MAP: Map("double"), VECTOR: Array("double")}
        return Schema([ColSpec(kinds.get(kind, kind), name, required=required) for name, kind, required in columns])

    model = Model(
        artifact_path=logged.artifact_location,
        run_id=logged.source_run_id,
        model_uuid=logged.model_id,
        model_id=logged.model_id,
    )
    copy = folder.parent / LOGGED_MODEL
    shutil.copytree(learner_folder, copy)  # MLflow keeps the folder's name
    save_model(
        folder,
        loader_module=LOADER,
        data_path=str(copy),
        mlflow_model=model,
        signature=ModelSignature(inputs=schema(inputs), outputs=schema(outputs)),
        input_example=input_example,
        metadata=dict(metadata),
        pip_requirements=[f"{package}=={version(package).partition('+')[0]}" for package in NEEDED],
    )


def _learner_inside(folder: Path, model_uri: str) -> Path:
    """The learner's folder in a pyfunc model, or `folder` itself if it is one."""
    description = folder / "MLmodel"
    if not description.is_file():
        if (folder / "learner.json").is_file():
            return folder
        raise InputError(f"{model_uri!r} holds no learner: it has neither an MLmodel nor a learner.json file")
    from mlflow.models import Model

    try:
        flavor = Model.load(str(description)).flavors["python_function"]
        loader, data = str(flavor["loader_module"]), PurePosixPath(flavor["data"])
    except Exception as error:  # it reads YAML of any content
        raise InputError(
            f"{model_uri!r} is not a learner of metaray: its MLmodel file has no loader or data"
        ) from error
    if loader != LOADER:
        raise InputError(f"{model_uri!r} is not a learner of metaray: it is loaded by {loader!r}, not by {LOADER!r}")
    if data.is_absolute() or ".." in data.parts or not (folder / data).is_dir():
        raise InputError(f"{model_uri!r}: its MLmodel file points to {str(data)!r}, which is no folder inside it")
    return folder / data
