"""What is trained and timed: experiments on images that are made up, of the size that each network is used on."""

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jobs.benchmarks.gpu.section import Setting
from metaray.algorithms import Algorithm
from metaray.data import ClassStore
from metaray.data.draws import Split
from metaray.data.preprocessing import ImagePreprocessing
from metaray.data.store_file import write_store
from metaray.episodes.episode import EpisodeSpec
from metaray.experiment.experiment import Evaluation, Experiment, Precision
from metaray.models import Conv4, Model, ResNet12

CLASSES: dict[Split, int] = {"meta-train": 32, "meta-val": 8, "meta-test": 8}
PER_CLASS = 20


class Network(NamedTuple):
    """A network, and how it is trained.

    Attributes:
        name: in tables.
        model: of it.
        channels: of its images.
        side: of its images, in pixels.
        meta_batch_size: episodes an outer step.
    """

    name: str
    model: Model
    channels: int
    side: int
    meta_batch_size: int


def networks(setting: Setting) -> dict[str, Network]:
    """Conv4 on images of Omniglot's size, ResNet-12 on those of CIFAR-FS's; small ones of a few channels."""
    if setting.small:
        conv4, resnet12 = Conv4(channels=4), ResNet12(channels=(2, 2, 2, 2))
        found = Network("Conv4", conv4, 1, 16, 4), Network("ResNet-12", resnet12, 3, 16, 4)
    else:
        found = Network("Conv4", Conv4(), 1, 28, 32), Network("ResNet-12", ResNet12(), 3, 32, 8)
    strided = found[0]._replace(name="Conv4, strided", model=found[0].model.model_copy(update={"downsample": "stride"}))
    return {network.name: network for network in (*found, strided)}


def experiment_of(
    setting: Setting,
    network: Network,
    algorithm: Algorithm,
    *,
    chunk_size: int | None = None,
    dtype: str = "float32",
    num_steps: int = 1000,
    seed: int = 0,
) -> Experiment:
    """5-way 1-shot with 15 queries a class (3, where all is small)."""
    return Experiment(
        name="gpu",
        source=ClassStore(path=str(made_up_store(setting.scratch, network.channels, network.side))),
        episodes=EpisodeSpec(ways=5, shots=1, queries=3 if setting.small else 15),
        model=network.model,
        algorithm=algorithm,
        meta_batch_size=network.meta_batch_size,
        num_steps=num_steps,
        evaluation=Evaluation(every=0, val_episodes=4, test_episodes=4),
        chunk_size=chunk_size,
        precision=Precision.parse({"dtype": dtype}, where="precision"),
        seed=seed,
    )


@lru_cache
def made_up_store(folder: Path, channels: int, side: int) -> Path:
    """A class store of coarse patterns under noise: each class can be learned, and no data set has to be there."""
    path = folder / f"made-up-{channels}x{side}.arrow"
    generator = np.random.default_rng(0)
    count = sum(CLASSES.values())
    patterns = generator.integers(0, 2, (count, 1, channels, 4, 4)) * 160
    coarse = patterns.repeat(-(-side // 4), axis=3).repeat(-(-side // 4), axis=4)[..., :side, :side]
    noise = generator.integers(0, 96, (count, PER_CLASS, channels, side, side))
    ends = np.cumsum(list(CLASSES.values()))
    write_store(
        path,
        examples=(coarse + noise).astype(np.uint8).reshape(-1, channels, side, side),
        counts=[PER_CLASS] * count,
        class_names=[f"class{i}" for i in range(count)],
        schemes={
            "default": {
                part: list(range(end - size, end)) for (part, size), end in zip(CLASSES.items(), ends, strict=True)
            }
        },
        preprocessing=ImagePreprocessing(height=side, width=side, mode="L" if channels == 1 else "RGB"),
        origin={"importer": "jobs.benchmarks.gpu"},
    )
    return path
