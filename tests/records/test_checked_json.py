"""The small JSON files of a run and a search."""

import json
import random
from typing import Any

import pytest

from metaray.config import Config
from metaray.errors import InputError
from metaray.manifest import CHECKSUM
from metaray.records.checked_json import read_record, write_record
from metaray.records.estimate import Estimate
from metaray.records.result import RESULT, Result, Rival, read_result
from metaray.records.run import RECORD_FILE, Run, RunRecord
from metaray.records.storage import Storage
from metaray.tuning.ledger_files import OUTCOME, read_copies, read_outcome, write_copies
from metaray.tuning.population import Copy
from tests.damage import KINDS, damaged

ESTIMATE = Estimate(0.5, 0.1, 10)
SOME_RESULT = Result(
    num_steps=3,
    best_step=2,
    meta_val=ESTIMATE,
    meta_val_scores=(0.25, 1 / 3),
    meta_test=ESTIMATE,
    before_adaptation=None,
    before_training=ESTIMATE,
    baselines={"nearest_neighbor": Rival(ESTIMATE)},
    parameters_sha256="ab",
    protocol="5-way",
    seconds=1.5,
    wait_share=0.01,
    episodes_per_s=100.0,
)


class Thing(Config):
    name: str
    rates: dict[str, float] = {}


TREE = {"name": "a", "rates": {"head": 0.1, "*": 1e-3}}


@pytest.fixture
def storage(tmp_path: Any) -> Storage:
    return Storage(str(tmp_path))


def read(storage: Storage) -> Thing:
    return read_record(storage, "thing.json", Thing, remedy="make another")


def test_what_is_written_is_read(storage: Storage) -> None:
    write_record(storage, "thing.json", TREE)
    assert read(storage) == Thing.parse(TREE, where="")


def test_order_and_space_are_no_damage(storage: Storage) -> None:
    write_record(storage, "thing.json", TREE)
    tree = json.loads(storage.read("thing.json"))
    storage.write("thing.json", json.dumps(dict(reversed(tree.items()))).encode())
    assert read(storage) == Thing.parse(TREE, where="")


def test_a_file_of_before_there_were_checksums(storage: Storage) -> None:
    storage.write("thing.json", json.dumps(TREE).encode())
    assert read(storage) == Thing.parse(TREE, where="")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("{", "not JSON"),
        ("[]", "is not a JSON object"),
        ('{"name": "a", "rates": {"head": 0.2}, "sha256": "00"}', "damaged: it does not match its checksum"),
        ('{"name": 3}', "name: Input should be a valid string"),
        ('{"name": "a", "colour": 1}', "unknown key 'colour'"),
        ('{"name": "a", "rates": ' + '{"a":' * 5000 + "1" + "}" * 5001, "nested more than"),
    ],
)
def test_anything_else_is_refused_with_the_file_and_what_to_do(text: str, what: str, storage: Storage) -> None:
    storage.write("thing.json", text.encode())
    with pytest.raises(InputError, match=f"{storage.root}/thing.json.*{what}.*; make another$"):
        read(storage)


def outcomes(storage: Storage) -> dict[str, Any]:
    """Each kind of file, how it is read, and with it written."""
    write_record(storage, RECORD_FILE, RunRecord(experiment={"seed": 17, "lr": 0.25}, tracking_run="id").model_dump())
    storage.write(RESULT, SOME_RESULT.file())
    write_record(storage, OUTCOME, {"status": "failed", "why": "out of memory"})
    write_copies(storage, "generation-000.json", [(4, Copy(1, 2, 1.25))])
    return {
        RECORD_FILE: lambda storage: Run("run", storage).record,
        RESULT: read_result,
        OUTCOME: read_outcome,
        "generation-000.json": lambda storage: read_copies(storage, "generation-000.json"),
    }


@pytest.mark.parametrize("kind", KINDS)
def test_no_damaged_file_of_a_run_or_search_is_believed(kind: str, storage: Storage) -> None:
    rng, refused, cases = random.Random(kind), 0, 0
    for name, reader in outcomes(storage).items():
        raw, wanted = storage.read(name), reader(storage)
        for case in range(15):
            storage.write(name, damaged(raw, kind, rng))
            cases += 1
            try:
                assert reader(storage) == wanted, f"{name} {kind} {case}"
            except InputError as error:
                assert name in str(error)
                refused += 1
    assert refused > cases / 2


def test_results_of_before_there_were_checksums(storage: Storage) -> None:
    tree = json.loads(SOME_RESULT.to_json())
    del tree["quality"]
    assert CHECKSUM not in tree and CHECKSUM in json.loads(SOME_RESULT.file())
    assert Result.from_json(json.dumps(tree)) == SOME_RESULT == Result.from_json(SOME_RESULT.file())
