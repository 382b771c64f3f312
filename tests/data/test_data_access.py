import os
import subprocess
import sys

import pytest

from metaray.data import ClassStore
from metaray.data.access import ACCESS, with_access, without_access
from metaray.errors import InputError

SIGNED = "https://h/a?id=7&X-Amz-Date={}&X-Amz-Signature={}"


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ACCESS, "")


def test_a_signed_address_is_recorded_without_its_signature_and_asked_for_with_it() -> None:
    first, second, other = SIGNED.format(1, "one"), SIGNED.format(2, "two"), "https://h/b?sig=three"
    assert without_access(first) == without_access(second) == "https://h/a?id=7"
    assert without_access(other) == "https://h/b"
    assert os.environ[ACCESS].split() == [second, other]
    assert with_access("https://h/a?id=7") == second and with_access("https://h/b") == other
    assert with_access("https://h/c") == "https://h/c" and with_access(first) == first


def test_the_same_data_signed_anew_are_the_same_experiment() -> None:
    first, second = (ClassStore(path=SIGNED.format(number, "hush")) for number in (1, 2))
    assert first == second and "hush" not in repr(first) + first.model_dump_json()


def test_the_processes_that_this_one_starts_may_ask_too() -> None:
    without_access(SIGNED.format(1, "one"))
    script = "from metaray.data.access import with_access; print(with_access('https://h/a?id=7'))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == SIGNED.format(1, "one")


def test_an_account_comes_from_the_environment_of_the_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ACCESS, "https://me:hu/sh@h/a  https://me:old@h/b https://me:new@h/b")
    assert with_access("https://h/a") == "https://me:hu/sh@h/a" and with_access("https://h/b") == "https://me:new@h/b"


@pytest.mark.parametrize(
    ("uri", "advice"),
    [
        ("https://me:hu/sh@h/a", "put the whole address into METARAY_ACCESS"),
        ("HTTPS://hush@h/a", "put the whole address into METARAY_ACCESS"),
        ("S3://KEY:HU/SH@bucket/a", "AWS_SECRET_ACCESS_KEY"),
        ("s3://bucket/a?secret_key=hush&access_key=hush", "AWS_SECRET_ACCESS_KEY"),
    ],
)
def test_passwords_are_refused(uri: str, advice: str) -> None:
    with pytest.raises(InputError, match="holds a credential: leave it out") as caught:
        without_access(uri)
    assert advice in str(caught.value) and "hu" not in str(caught.value).lower() and ACCESS in os.environ
    assert os.environ[ACCESS] == ""
