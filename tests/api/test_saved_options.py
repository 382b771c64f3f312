"""A search that goes on runs as it was begun."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from metaray.api.saved_options import OPTIONS_FILE, Asked, options_of, remember
from metaray.api.search_end import WINNER
from metaray.api.search_options import SearchOptions
from metaray.errors import InputError
from metaray.records.storage import Storage
from metaray.tuning.capacity import Shares

ALL: dict[str, Any] = {
    "workers_per_trial": 3,
    "samplers": 1,
    "cpus_per_worker": 0.5,
    "gpus_per_trial": 0.25,
    "concurrent": 2,
    "device": "cpu",
    "address": "head:6379",
    "hang_timeout": 60.0,
    "tracking_uri": "http://mlflow:5000",
    "registered": False,
    "promote": None,  # goes with registered
    "link_encoder": None,  # likewise
    "apply": "/tmp/best.json",
}
NOTHING = dict.fromkeys(ALL)


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A storage with a search that was begun with all options."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    options, remembered = options_of("mine", str(tmp_path), ALL)
    assert remembered == Asked()
    remember(Storage(str(tmp_path)).child("mine"), options)
    return str(tmp_path)


def test_a_resumed_search_remembers_what_it_was_begun_with(runs: str) -> None:
    assert ALL.keys() == Asked.model_fields.keys()
    options, remembered = options_of("mine", runs, NOTHING)
    asked, _ = options_of("new", runs, ALL)
    assert options == dataclasses.replace(asked, name="mine")
    assert options.shares == Shares(workers=3, samplers=1, cpus=0.5, gpus=0.25, concurrent=2)
    assert (options.device, options.address, options.hang_timeout_s) == ("cpu", "head:6379", 60.0)
    assert (options.tracking_uri, options.register, str(options.apply)) == (ALL["tracking_uri"], False, ALL["apply"])
    assert remembered.text == (
        "--workers-per-trial 3 --samplers 1 --cpus-per-worker 0.5 --gpus-per-trial 0.25 --concurrent 2 --device cpu "
        "--address head:6379 --hang-timeout 60.0 --tracking-uri http://mlflow:5000 --no-register --apply /tmp/best.json"
    )


@pytest.mark.parametrize(
    ("name", "value"), [("concurrent", 1), ("workers_per_trial", 0), ("registered", True), ("device", "auto")]
)
def test_what_is_said_again_wins_and_is_remembered(name: str, value: Any, runs: str) -> None:
    options, remembered = options_of("mine", runs, NOTHING | {name: value})
    assert getattr(remembered, name) is None and remembered.model_dump(exclude={name}) == Asked(
        **{key: known for key, known in ALL.items() if key != name}
    ).model_dump(exclude={name})
    remember(Storage(runs).child("mine"), options)
    again, _ = options_of("mine", runs, NOTHING)
    assert again == options
    found = {
        **vars(again),
        **vars(again.shares),
        "workers_per_trial": again.shares.workers,
        "registered": again.register,
    }
    assert found[name] == value


@pytest.mark.parametrize("wish", ["promote", "link_encoder"])
def test_a_resumed_search_remembers_a_wish_unless_it_is_not_registered_any_more(wish: str, tmp_path: Path) -> None:
    begun, _ = options_of("mine", str(tmp_path), NOTHING | {wish: True}, verify=True)
    assert getattr(begun, wish) and begun.verify
    remember(Storage(str(tmp_path)).child("mine"), begun)
    again, remembered = options_of("mine", str(tmp_path), NOTHING)
    assert getattr(again, wish) and again.register and remembered.text == f"--{wish.replace('_', '-')}"
    assert not again.verify  # of that call alone
    unregistered, _ = options_of("mine", str(tmp_path), NOTHING | {"registered": False})
    assert not getattr(unregistered, wish) and not unregistered.register


@pytest.mark.parametrize("wish", ["promote", "link_encoder"])
def test_a_search_begun_without_registering_can_have_a_wish_later(wish: str, runs: str) -> None:
    options, remembered = options_of("mine", runs, NOTHING | {wish: True})
    assert getattr(options, wish) and options.register and remembered.registered is None


def test_a_new_search_has_the_defaults(tmp_path: Path) -> None:
    for name in (None, "mine", "../mine"):
        options, remembered = options_of(name, str(tmp_path), NOTHING)
        assert options == SearchOptions(shares=Shares(gpus=1.0), name=name, storage=str(tmp_path))
        assert remembered.text == ""
    remember(Storage(str(tmp_path)).child("mine"), options)
    assert json.loads((tmp_path / "mine" / OPTIONS_FILE).read_text()) == {}


def test_a_cluster_that_the_environment_names_goes_before(runs: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:6379")
    assert options_of("mine", runs, NOTHING)[0].address is None


def test_what_was_applied_is_not_written_again(runs: str) -> None:
    (Path(runs) / "mine" / WINNER).write_text("{}")
    assert options_of("mine", runs, NOTHING)[0].apply is None
    assert options_of("mine", runs, NOTHING | {"apply": "x.json"})[0].apply == Path("x.json")


def test_a_password_is_asked_for_again(tmp_path: Path) -> None:
    uri = "http://me:hunter2@mlflow:5000"
    remember(
        Storage(str(tmp_path)).child("mine"), options_of("mine", str(tmp_path), NOTHING | {"tracking_uri": uri})[0]
    )
    assert "hunter2" not in (tmp_path / "mine" / OPTIONS_FILE).read_text()
    with pytest.raises(InputError, match=r"begun with --tracking-uri http://me:\*\*\*@mlflow:5000: give it again"):
        options_of("mine", str(tmp_path), NOTHING)
    assert options_of("mine", str(tmp_path), NOTHING | {"tracking_uri": uri})[0].tracking_uri == uri


def test_relative_places_stay_where_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    asked = NOTHING | {"tracking_uri": "sqlite:///here.db", "apply": "best.json"}
    remember(Storage("runs").child("mine"), options_of("mine", "runs", asked)[0])
    monkeypatch.chdir("/")
    options, _ = options_of("mine", str(tmp_path / "runs"), NOTHING)
    assert (options.tracking_uri, options.apply) == (f"sqlite:///{tmp_path}/here.db", tmp_path / "best.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "is not a JSON object"),
        ('{"concurrent": 1, "concurrent": 2}', "comes twice"),
        ('{"concurent": 2}', "Did you mean 'concurrent'"),
        ("\xff", "not JSON"),
    ],
)
def test_a_damaged_record_is_refused(text: str, message: str, runs: str) -> None:
    (Path(runs) / "mine" / OPTIONS_FILE).write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=f"options of the search in .*mine.*{message}"):
        options_of("mine", runs, NOTHING)
