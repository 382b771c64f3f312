"""A learner resizes what users give it as its store was resized."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from metaray.algorithms import ProtoNet
from metaray.data import ClassStore
from metaray.data.images import import_images
from metaray.data.preprocessing import Resample
from metaray.data.store_file import read_store
from metaray.experiment.experiment import Evaluation, Experiment
from metaray.learners.loading import load_learner
from metaray.records.run import LEARNER
from metaray.records.storage import Storage
from tests.training.whole_runs import train


@pytest.mark.parametrize("resample", ["nearest", "hamming"])
def test_raw_files_become_the_arrays_of_the_store(
    resample: Resample, make_experiment: Callable[..., Experiment], tmp_path: Path
) -> None:
    generator = np.random.default_rng(0)
    for name in range(9):
        (tmp_path / "raw" / str(name)).mkdir(parents=True)
        for i in range(4):
            drawing = Image.fromarray(generator.integers(0, 256, (37, 29), dtype=np.uint8))
            drawing.save(tmp_path / "raw" / str(name) / f"{i}.png")
    store = tmp_path / "store.arrow"
    fractions = (0.34, 0.33, 0.33)
    import_images(tmp_path / "raw", store, size=8, mode="L", invert=True, resample=resample, splits=fractions)
    experiment = make_experiment(
        source=ClassStore(path=str(store)),
        algorithm=ProtoNet(),
        num_steps=1,
        evaluation=Evaluation(every=0, val_episodes=2, test_episodes=2),
    )
    train(experiment, Storage(str(tmp_path / "run")))
    learner = load_learner(tmp_path / "run" / LEARNER)
    assert learner.preprocessing == read_store(store).meta.preprocessing
    files = sorted((tmp_path / "raw").rglob("*.png"))[:12]  # of the first three classes
    stored = [255 - image for image in read_store(store).examples[:12, 0]]
    assert np.array_equal(learner.compact(files), learner.compact(stored))
    labels = [file.parent.name for file in files]
    of_files, of_stored = (learner.adapt(x, labels).predict_proba(x) for x in (files, stored))
    assert np.array_equal(of_files, of_stored)
