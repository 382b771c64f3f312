"""Which tests keep to one process where several test: of that a whole run takes half the time, or twice."""

from types import SimpleNamespace
from typing import Any

import pytest

from tests.conftest import group_of


def test_each_test_runs_where_its_group_does(request: pytest.FixtureRequest) -> None:
    assert group_of(request.node) == "tests/test_process_groups.py"
    if getattr(request.config.option, "loadgroup", False):
        assert request.node.nodeid.endswith("@tests/test_process_groups.py"), "by this pytest-xdist finds it"


@pytest.mark.parametrize(
    ("fixtures", "mark", "group"),
    [
        (["tmp_path", "ray_cluster", "trained"], "slow", "ray"),
        (["tmp_path"], "ray", "ray"),
        (["trained"], "slow", "trained"),
        (["database"], "slow", "tests/a.py"),
    ],
)
def test_what_shares_is_a_group(fixtures: list[str], mark: str, group: str) -> None:
    marks = [SimpleNamespace(name=mark)]
    item: Any = SimpleNamespace(fixturenames=fixtures, iter_markers=lambda: marks, location=("tests/a.py", 1, "test"))
    assert group_of(item) == group
