"""Import paths of before."""

import importlib
import subprocess
import sys

import pytest

from metaray.moved import MOVED, RENAMED


@pytest.mark.parametrize("old", MOVED)
def test_an_old_path_leads_to_the_same_things(old: str) -> None:
    sys.modules.pop(old, None)
    with pytest.warns(DeprecationWarning, match=f"{old} is {MOVED[old]} now"):
        before = importlib.import_module(old)
    now = importlib.import_module(MOVED[old])
    new_names = set(RENAMED.get(old, {}).values())
    public = [name for name in vars(now) if not name.startswith("_") and name not in new_names]
    assert public and all(getattr(before, name) is getattr(now, name) for name in public)
    for was, is_now in RENAMED.get(old, {}).items():
        assert getattr(before, was) is getattr(now, is_now)
    with pytest.raises(AttributeError, match="no_such_name"):
        getattr(before, "no_such_name")  # noqa: B009


def test_what_nobody_else_needs_is_gone() -> None:
    with pytest.raises(ModuleNotFoundError, match="training.board"):
        importlib.import_module("metaray.training.board")


def test_a_recipe_of_before_imports_in_a_new_process() -> None:
    code = "from metaray.training.experiment import Experiment; from metaray.algorithms.inner_loop import support_loss"
    command = [sys.executable, "-W", "error", "-W", "ignore::DeprecationWarning", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
