"""Names, versions and aliases, in a real MLflow database."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest

from metaray.errors import InputError
from metaray.tracking.artifact import register
from metaray.tracking.registry import champion, find_alias, list_models, set_alias, show

COLUMNS = [("image", "binary", True)]


def add(uri: str, run_id: str, name: str, folder: Path, **tags: str) -> int:
    example = pd.DataFrame({"image": [b"\x89PNG"]})
    return register(
        uri, run_id, name=name, learner_folder=folder, inputs=COLUMNS, outputs=COLUMNS, input_example=example, tags=tags
    )


def test_versions_tags_and_aliases(uri: str, run_id: str, learner_folder: Path) -> None:
    assert champion(uri, "glyphs") is None
    assert add(uri, run_id, "glyphs", learner_folder, algorithm="maml") == 1
    assert champion(uri, "glyphs") is None
    assert add(uri, run_id, "glyphs", learner_folder) == 2
    assert set_alias(uri, "glyphs", 1).aliases == ("champion",)
    assert set_alias(uri, "glyphs", 1, "stable").aliases == ("champion", "stable")
    set_alias(uri, "glyphs", 2)

    model = show(uri, "glyphs")
    assert model.aliases == {"champion": 2, "stable": 1}
    assert [version.version for version in model.versions] == [2, 1]
    newest, oldest = model.versions
    assert newest.uri == "models:/glyphs/2"
    assert newest.aliases == ("champion",)
    assert newest.run_id == run_id
    assert timedelta(0) <= datetime.now(UTC) - newest.created < timedelta(minutes=5)
    assert oldest.tags == {"algorithm": "maml"}
    assert champion(uri, "glyphs") == newest == find_alias(uri, "glyphs", "champion")


def test_list_is_by_name(uri: str, run_id: str, learner_folder: Path) -> None:
    add(uri, run_id, "zebra", learner_folder)
    add(uri, run_id, "it's a name", learner_folder)
    names = [model.name for model in list_models(uri)]
    assert names == sorted(names)
    assert {"zebra", "it's a name"} <= set(names)
    assert all(model.versions for model in list_models(uri))


def test_what_does_not_exist_is_answered_with_what_does(uri: str, run_id: str, learner_folder: Path) -> None:
    add(uri, run_id, "omniglot-maml", learner_folder)
    set_alias(uri, "omniglot-maml", 1, "champion")
    with pytest.raises(InputError, match="'omniglot-mamal'. Did you mean 'omniglot-maml'"):
        show(uri, "omniglot-mamal")
    with pytest.raises(InputError, match="unknown model"):
        show(uri, "")
    with pytest.raises(InputError, match="unknown alias of omniglot-maml 'champoin'. Did you mean 'champion'"):
        find_alias(uri, "omniglot-maml", "champoin")
    with pytest.raises(InputError, match=r"unknown version of omniglot-maml '7'. Known: 1\."):
        set_alias(uri, "omniglot-maml", 7)


@pytest.mark.parametrize("alias", ["latest", "v1", "a b"])
def test_aliases_that_mlflow_reserves(alias: str, uri: str, run_id: str, learner_folder: Path) -> None:
    add(uri, run_id, "reserved", learner_folder)
    with pytest.raises(InputError, match=f"'{alias}' can't be an alias"):
        set_alias(uri, "reserved", 1, alias)


def test_a_name_that_mlflow_refuses(uri: str, run_id: str, learner_folder: Path) -> None:
    with pytest.raises(InputError, match="'a/b' can't name a registered model"):
        add(uri, run_id, "a/b", learner_folder)
