"""The model registry: names, versions and aliases of learners, kept by MLflow.

A version is a pyfunc model whose loader is the installed metaray: the artifact holds safetensors, JSON and MLflow's
YAML, no pickle and no code.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from metaray.errors import InputError, unknown
from metaray.tracking.client import error_code
from metaray.tracking.server import MlflowServer

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion as MlflowVersion
    from mlflow.entities.model_registry import RegisteredModel as MlflowModel

CHAMPION = "champion"
PAGE = 100


@dataclass(frozen=True)
class ModelVersion:
    """One version of a registered model.

    Attributes:
        name: Name of the registered model.
        version: Number of the version, from 1.
        run_id: Id of the MLflow run that trained it; None if it was registered without one.
        created: Time of registration, in UTC.
        tags: Tags of the version.
        aliases: Aliases that point to the version now.
        source: Place where MLflow keeps the artifact.
    """

    name: str
    version: int
    run_id: str | None
    created: datetime
    tags: Mapping[str, str]
    aliases: tuple[str, ...]
    source: str

    @property
    def uri(self) -> str:
        """URI of the version, `models:/NAME/VERSION`."""
        return f"models:/{self.name}/{self.version}"


@dataclass(frozen=True)
class RegisteredModel:
    """A registered model with its versions.

    Attributes:
        name: Name of the model, unique at its tracking URI.
        versions: Versions, the newest first.
        aliases: Number of the version that each alias points to.
    """

    name: str
    versions: tuple[ModelVersion, ...] = ()
    aliases: Mapping[str, int] = field(default_factory=dict)


def list_models(server: MlflowServer) -> list[RegisteredModel]:
    """Every registered model, by name."""
    client = server.client
    models: list[MlflowModel] = []
    token: str | None = None
    while token is None or token:
        page = client.search_registered_models(max_results=PAGE, page_token=token)
        models += page
        token = page.token or ""
    return [_model(server, model) for model in sorted(models, key=lambda model: str(model.name))]


def show(server: MlflowServer, name: str) -> RegisteredModel:
    """Look up a registered model with all its versions.

    Raises:
        InputError: If there is no such model; the message lists those there are.
    """
    from mlflow.exceptions import MlflowException

    try:
        return _model(server, server.client.get_registered_model(name))
    except MlflowException as error:
        if error_code(error) not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
    raise unknown(f"model at {server.shown}:", name, [model.name for model in list_models(server)])


def find_version(server: MlflowServer, name: str, version: int) -> ModelVersion:
    """Look up one version of a registered model.

    Raises:
        InputError: If it does not exist; the message lists those there are.
    """
    versions = {found.version: found for found in show(server, name).versions}
    if version not in versions:
        raise unknown(f"version of {name}", str(version), [str(number) for number in versions])
    return versions[version]


def find_alias(server: MlflowServer, name: str, alias: str) -> ModelVersion:
    """Look up the version that `alias` points to.

    Raises:
        InputError: If the model has no such alias; the message lists those it has.
    """
    model = show(server, name)
    if alias not in model.aliases:
        raise unknown(f"alias of {name}", alias, model.aliases)
    return find_version(server, name, model.aliases[alias])


def champion(server: MlflowServer, name: str, alias: str = CHAMPION) -> ModelVersion | None:
    """The version `alias` points to, None if the model or the alias does not exist yet."""
    models = {model.name: model for model in list_models(server)}
    if name not in models or alias not in models[name].aliases:
        return None
    return find_version(server, name, models[name].aliases[alias])


def set_alias(server: MlflowServer, name: str, version: int, alias: str = CHAMPION) -> ModelVersion:
    """Point `alias` to `version` and return it.

    Raises:
        InputError: If the model or the version does not exist, or MLflow reserves the alias (`latest`, `v1`).
    """
    from mlflow.exceptions import MlflowException

    find_version(server, name, version)
    try:
        server.client.set_registered_model_alias(name, alias, str(version))
    except MlflowException as error:
        if error_code(error) != "INVALID_PARAMETER_VALUE":
            raise
        raise InputError(f"{alias!r} can't be an alias: {error.message}") from error
    return find_version(server, name, version)


def tag_version(server: MlflowServer, name: str, version: int, tags: Mapping[str, str]) -> None:
    """Add tags to a version."""
    for key, value in tags.items():
        server.client.set_model_version_tag(name, str(version), key, value)


def _model(server: MlflowServer, model: "MlflowModel") -> RegisteredModel:
    aliases = {str(alias): int(version) for alias, version in model.aliases.items()}
    quote = '"' if "'" in str(model.name) else "'"
    found: list[MlflowVersion] = []
    token: str | None = None
    while token is None or token:
        page = server.client.search_model_versions(
            f"name = {quote}{model.name}{quote}", max_results=PAGE, page_token=token
        )
        found += page
        token = page.token or ""
    versions = sorted((_version(version, aliases) for version in found), key=lambda v: v.version, reverse=True)
    return RegisteredModel(str(model.name), tuple(versions), aliases)


def _version(version: "MlflowVersion", aliases: Mapping[str, int]) -> ModelVersion:
    number = int(version.version)
    return ModelVersion(
        name=str(version.name),
        version=number,
        run_id=str(version.run_id) if version.run_id else None,
        created=datetime.fromtimestamp(version.creation_timestamp / 1000, UTC),
        tags={str(key): str(value) for key, value in version.tags.items()},
        aliases=tuple(sorted(alias for alias, target in aliases.items() if target == number)),
        source=str(version.source),
    )
