"""Names, versions and aliases, in a real MLflow database."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest

from metaray.errors import InputError
from metaray.tracking.artifact import register
from metaray.tracking.mlflow_run import MlflowRun
from metaray.tracking.registry import champion, find_alias, list_models, set_alias, show
from metaray.tracking.server import MlflowServer

COLUMNS = [("image", "binary", True)]


def add(tracked: MlflowRun, name: str, folder: Path, **tags: str) -> int:
    example = pd.DataFrame({"image": [b"\x89PNG"]})
    return register(
        tracked.server,
        tracked.id,
        name=name,
        learner_folder=folder,
        inputs=COLUMNS,
        outputs=COLUMNS,
        input_example=example,
        tags=tags,
    )


def test_versions_tags_and_aliases(server: MlflowServer, tracked: MlflowRun, learner_folder: Path) -> None:
    assert champion(server, "glyphs") is None
    assert add(tracked, "glyphs", learner_folder, algorithm="maml") == 1
    assert champion(server, "glyphs") is None
    assert add(tracked, "glyphs", learner_folder) == 2
    assert set_alias(server, "glyphs", 1).aliases == ("champion",)
    assert set_alias(server, "glyphs", 1, "stable").aliases == ("champion", "stable")
    set_alias(server, "glyphs", 2)

    model = show(server, "glyphs")
    assert model.aliases == {"champion": 2, "stable": 1}
    assert [version.version for version in model.versions] == [2, 1]
    newest, oldest = model.versions
    assert newest.uri == "models:/glyphs/2"
    assert newest.aliases == ("champion",)
    assert newest.run_id == tracked.id
    assert timedelta(0) <= datetime.now(UTC) - newest.created < timedelta(minutes=5)
    assert oldest.tags == {"algorithm": "maml"}
    assert champion(server, "glyphs") == newest == find_alias(server, "glyphs", "champion")


def test_list_is_by_name(server: MlflowServer, tracked: MlflowRun, learner_folder: Path) -> None:
    add(tracked, "zebra", learner_folder)
    add(tracked, "it's a name", learner_folder)
    names = [model.name for model in list_models(server)]
    assert names == sorted(names)
    assert {"zebra", "it's a name"} <= set(names)
    assert all(model.versions for model in list_models(server))


def test_what_does_not_exist_is_answered_with_what_does(
    server: MlflowServer, tracked: MlflowRun, learner_folder: Path
) -> None:
    add(tracked, "omniglot-maml", learner_folder)
    set_alias(server, "omniglot-maml", 1, "champion")
    with pytest.raises(InputError, match="'omniglot-mamal'. Did you mean 'omniglot-maml'"):
        show(server, "omniglot-mamal")
    with pytest.raises(InputError, match="unknown model"):
        show(server, "")
    with pytest.raises(InputError, match="unknown alias of omniglot-maml 'champoin'. Did you mean 'champion'"):
        find_alias(server, "omniglot-maml", "champoin")
    with pytest.raises(InputError, match=r"unknown version of omniglot-maml '7'. Known: 1\."):
        set_alias(server, "omniglot-maml", 7)


@pytest.mark.parametrize("alias", ["latest", "v1", "a b"])
def test_aliases_that_mlflow_reserves(
    alias: str, server: MlflowServer, tracked: MlflowRun, learner_folder: Path
) -> None:
    add(tracked, "reserved", learner_folder)
    with pytest.raises(InputError, match=f"'{alias}' can't be an alias"):
        set_alias(server, "reserved", 1, alias)


def test_a_name_that_mlflow_refuses(server: MlflowServer, tracked: MlflowRun, learner_folder: Path) -> None:
    with pytest.raises(InputError, match="'a/b' can't name a registered model"):
        add(tracked, "a/b", learner_folder)
