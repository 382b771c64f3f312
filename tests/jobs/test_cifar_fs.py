"""The CIFAR-FS recipes on a small store of coloured noise: they are checked, and take steps."""

from pathlib import Path

import numpy as np
import pytest

from jobs import cifar_fs
from metaray.config import replace
from metaray.data import ClassStore
from metaray.data.preprocessing import ImagePreprocessing
from metaray.data.store_file import write_store
from metaray.episodes.episode import EpisodeSpec
from metaray.experiment import Evaluation, Experiment
from metaray.models import Conv4, R2D2Net, ResNet12
from metaray.models.model import Model
from metaray.records.storage import Storage
from metaray.training.checks.preflight import preflight
from tests.training.whole_runs import Memory, train_in_process

RECIPES = sorted(name for name in vars(cifar_fs) if name.endswith("shot") and not name.startswith("_"))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    generator = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("store") / "small.arrow"
    write_store(
        path,
        examples=generator.integers(0, 256, (70 * 12, 3, 32, 32), dtype=np.uint8),
        counts=[12] * 70,
        class_names=[f"class{i}" for i in range(70)],
        schemes={
            "default": {
                "meta-train": list(range(40)),
                "meta-val": list(range(40, 50)),
                "meta-test": list(range(50, 70)),
            }
        },
        preprocessing=ImagePreprocessing(height=32, width=32, mode="RGB"),
        origin={},
    )
    return str(path)


def narrow(model: Model) -> Model:
    """As deep, but cheap."""
    assert isinstance(model, Conv4 | R2D2Net | ResNet12)
    return replace(model, channels=(4, 5, 6, 7))


def small(name: str, store: str) -> Experiment:
    recipe: Experiment = getattr(cifar_fs, name)()
    assert isinstance(recipe.source, ClassStore)
    train = recipe.episodes
    return replace(
        recipe,
        source=replace(recipe.source, path=store),
        model=narrow(recipe.model),
        episodes=replace(train, ways=min(train.ways, 5), queries=2),
        meta_batch_size=2,
        num_steps=2,
        evaluation=Evaluation(
            episodes=EpisodeSpec(ways=5, shots=1, queries=3), every=0, val_episodes=2, test_episodes=2
        ),
    )


@pytest.mark.parametrize("name", [name for name in RECIPES if name.endswith("_1shot")])
def test_it_passes_the_checks(name: str, store: str) -> None:
    assert preflight(small(name, store)) == ()


@pytest.mark.parametrize("name", ["protonet_conv4_5shot", "r2d2_wide_1shot", "protonet_resnet12_1shot"])
def test_it_takes_steps(name: str, store: str, tmp_path: Path) -> None:
    experiment = small(name, store)
    result = train_in_process(experiment, Storage(str(tmp_path)), Memory(), device="cpu")
    assert result.num_steps == 2


@pytest.mark.parametrize("name", RECIPES)
def test_it_is_judged_as_its_name_says(name: str) -> None:
    experiment: Experiment = getattr(cifar_fs, name)()
    spec = experiment.eval_spec
    assert (spec.ways, spec.shots, spec.queries) == (5, int(name[-5]), 15)
    assert experiment.name == f"cifar-fs-{name.removesuffix('_' + name[-5:]).replace('_', '-')}-{name[-5:]}"
    of_metaoptnet = "resnet12" in name or "metaoptnet" in name
    assert (experiment.augmentation is not None) == of_metaoptnet


def test_there_are_three_algorithms_on_two_backbones() -> None:
    kinds = {name.rsplit("_", 1)[0] for name in RECIPES}
    assert kinds >= {f"{head}_{body}" for head in ("protonet", "r2d2", "metaoptnet") for body in ("conv4", "resnet12")}
