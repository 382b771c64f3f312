"""What metaray raises on purpose."""

import pytest

from metaray.errors import InputError, RunFailed, RunStopped, unknown


def test_the_tree() -> None:
    assert issubclass(InputError, ValueError)
    assert issubclass(RunFailed, RuntimeError) and issubclass(RunStopped, RuntimeError)
    assert not issubclass(RunStopped, RunFailed)


@pytest.mark.parametrize(
    ("got", "known", "message"),
    [
        ("mamml", ["protonet", "maml"], "unknown thing 'mamml'. Did you mean 'maml'? Known: maml, protonet."),
        ("xyz", ["maml"], "unknown thing 'xyz'. Known: maml."),
        ("xyz", [], "unknown thing 'xyz'. Known: none."),
    ],
)
def test_unknown_names_the_nearest(got: str, known: list[str], message: str) -> None:
    error = unknown("thing", got, known)
    assert isinstance(error, InputError) and str(error) == message
