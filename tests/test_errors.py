"""What metaray raises on purpose."""

import pytest

from metaray.errors import InputError, RunFailed, RunStopped, redacted, unknown


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


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql://me:secret@host/db", "postgresql://me:***@host/db"),
        ("mysql+pymysql://u:p@ss@host:3306/db", "mysql+pymysql://u:***@host:3306/db"),
        ("mysql://u:p:ss@host", "mysql://u:***@host"),
        ("s3://KEY:SECRET@bucket/runs?region=eu", "s3://KEY:***@bucket/runs?region=eu"),
        ("redis://:secret@host", "redis://:***@host"),
        ("https://TOKEN@host/x.git", "https://***@host/x.git"),
        ("http://TOKEN@host:5000", "http://***@host:5000"),
        ("https://oauth2:TOKEN@host/x.git", "https://oauth2:***@host/x.git"),
        ("no 's3://A:B@c' and no https://T@h.", "no 's3://A:***@c' and no https://***@h."),
    ],
)
def test_passwords_and_tokens_are_hidden(text: str, shown: str) -> None:
    assert redacted(text) == redacted(redacted(text)) == shown


@pytest.mark.parametrize(
    "text",
    [
        "",
        "runs",
        "/home/me@work/runs",
        "http://host:5000",
        "http://host:5000/a@b",
        "https://host/x?to=a@b",
        "s3://bucket/runs",
        "sqlite:////a/b.db",
        "git@host:me/x.git",
        "worker 1: KeyError: 'a@b'",
    ],
)
def test_what_has_no_password_stays(text: str) -> None:
    assert redacted(text) == text
