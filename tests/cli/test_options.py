import pytest

from metaray.cli.options import FEW_STEPS, with_values
from metaray.training.profiling import STEPS


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ("r --profile", "r --profile 5"),
        ("--profile r", "--profile 5 r"),
        ("r --profile 3 --json", "r --profile 3 --json"),
        ("r --profile --json", "r --profile 5 --json"),
        ("r --profile=3", "r --profile=3"),
        ("r --profile -1", "r --profile -1"),
        ("r --json", "r --json"),
    ],
)
def test_a_profile_without_a_number_takes_a_few_steps(given: str, read: str) -> None:
    assert with_values(given.split()) == read.split()
    assert int(FEW_STEPS) == STEPS
