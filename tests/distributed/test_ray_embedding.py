"""An encoder over a store on a cluster: the bytes of one process."""

from pathlib import Path

import numpy as np
import pytest

from metaray.api.embed import embed
from metaray.data.store_file import read_store
from metaray.distributed.embedding import NUMBER, PROBLEM, VECTORS, Embedding, _vectors
from metaray.errors import InputError, RunFailed
from metaray.models import Encoder
from metaray.models.encoders.embedding import Batches, Task
from metaray.training.placement import Placement, Workers
from tests.models.encoders.test_embedded_stores import Stopped, folder, stop, store

__all__ = ["folder", "store"]
HERE = Placement(device="cpu")
TWO = Placement(workers=Workers(2, 2), cpus_per_worker=0.5, device="cpu")


def task_of(store: str, folder: str) -> Task:
    described = Encoder(path=folder).model_dump(mode="json")
    return Task(store, read_store(Path(store)).meta.fingerprint, described, 16, "cpu", ())


def rows(block: dict[str, list[object]]) -> list[dict[str, object]]:
    return [dict(zip(block, values, strict=True)) for values in zip(*block.values(), strict=True)]


def test_what_an_actor_does(store: str, folder: str) -> None:
    task = task_of(store, folder)
    found = rows(Embedding(tuple(task))({NUMBER: np.array([4, 1])}))
    assert [row[NUMBER] for row in found] == [4, 1]
    for row in found:
        assert np.array_equal(_vectors(row), Batches(task).vectors(int(str(row[NUMBER]))))
    assert _vectors(found[0]).shape == (8, 8), "the last batch is shorter"


def test_what_goes_wrong_is_told(store: str, folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    task = task_of(store, folder)
    wrong = rows(Embedding(tuple(task._replace(fingerprint="0123")))({NUMBER: np.array([0])}))
    with pytest.raises(InputError, match="its fingerprint is .* here, but 0123 elsewhere"):
        _vectors(wrong[0])
    monkeypatch.setattr(Batches, "vectors", lambda self, number: {}[number])
    broken = rows(Embedding(tuple(task))({NUMBER: np.array([0, 1])}))
    assert broken[1][VECTORS] == b"" and broken[1][PROBLEM]
    with pytest.raises(RunFailed, match="an encoder on the cluster: KeyError: 0"):
        _vectors(broken[0])


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_on_a_cluster_as_in_this_process(
    store: str, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One begun here goes on there, and is the same to the last byte."""
    monkeypatch.setattr("metaray.models.encoders.embedding.SAVED_EVERY", 2)
    encoder, whole, out = Encoder(path=folder), tmp_path / "whole.arrow", tmp_path / "out.arrow"
    embed(store, encoder, whole, HERE, batch_size=8)
    with pytest.raises(Stopped):
        embed(store, encoder, out, HERE, batch_size=8, progress=stop)
    told: list[tuple[int, int]] = []
    report = embed(store, encoder, out, TWO, batch_size=8, progress=lambda *done: told.append(done))
    assert report.before == 32 and told[-1] == (72, 72) and len(told) == 5
    assert out.read_bytes() == whole.read_bytes()
