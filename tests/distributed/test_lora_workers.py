"""Few trained numbers of frozen encoders, by real workers: one SHA-256 of them for 0, 1 and 2 workers."""

from pathlib import Path
from typing import Literal

import pytest

from metaray.distributed.cluster import connect
from metaray.distributed.trainer import OnRay
from metaray.records.result import read_result
from metaray.records.storage import Storage
from metaray.training.place import Extent
from metaray.training.placement import Placement, Workers
from tests.models.encoders.image_runs import image_experiment
from tests.training.test_lora_runs import ALGORITHMS, lora_experiment
from tests.training.whole_runs import Memory, train_in_process

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.usefixtures("ray_cluster"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]


@pytest.mark.parametrize("kind", ["bert", "resnet", "vit"])
def test_workers_train_the_same_numbers(tmp_path: Path, kind: Literal["bert", "resnet", "vit"]) -> None:
    wanted = lora_experiment(tmp_path, ALGORITHMS[0]) if kind == "bert" else image_experiment(tmp_path, kind)
    alone = train_in_process(wanted, Storage(str(tmp_path / "alone")), Memory(), device="cpu")
    found = {alone.parameters_sha256}
    for count in (1, 2):
        placement = Placement(workers=Workers(count, count), samplers=1, cpus_per_worker=0.5, device="cpu")
        storage = Storage(str(tmp_path / str(count)))
        connect(placement)
        OnRay(placement, ()).train(wanted, storage, Memory(), Extent())
        found.add(read_result(storage).parameters_sha256)
    assert len(found) == 1
