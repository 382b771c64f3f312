"""Learners: saved, loaded, adapted to raw images, and what they refuse."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from metaray.algorithms import MAML, Algorithm, ProtoNet
from metaray.algorithms.algorithm import start
from metaray.algorithms.task_shape import TaskShape
from metaray.data.preprocessing import ImagePreprocessing
from metaray.episodes.episode import EpisodeSpec
from metaray.errors import BatchMatters, InputError
from metaray.learners.learner import Learner
from metaray.learners.learner_file import DESCRIPTION, PARAMETERS
from metaray.learners.loading import load_learner
from metaray.manifest import MANIFEST, sealed
from metaray.models import MLP

PREPROCESSING = ImagePreprocessing(height=6, width=6, mean=(0.4,), std=(0.3,))
SPEC = EpisodeSpec(ways=3, shots=2, queries=1)
ALGORITHMS_HERE = [
    MAML(inner_lr={"head.*": 0.5, "*": 0.1}, inner_steps=2, batch_norm="transductive"),
    MAML(inner_lr=0.2, batch_norm="inductive"),
    ProtoNet(batch_norm="transductive"),
    ProtoNet(batch_norm="inductive"),
]
every_algorithm = pytest.mark.parametrize("algorithm", ALGORITHMS_HERE, ids=str)


def own_network(*, feature_shape: tuple[int, ...], outputs: int | None) -> nn.Module:
    return MLP(hidden=(5,)).build(feature_shape, outputs)


def learner_of(algorithm: Algorithm) -> Learner:
    model = MLP(hidden=(5,))
    _, meta = start(algorithm, model, TaskShape(PREPROCESSING.feature_shape, SPEC.most_ways), seed=3)
    return Learner(algorithm, model, meta, PREPROCESSING, SPEC, provenance={"note": "untrained"})


def images(count: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, 9, 7), dtype=np.uint8)


SUPPORT, QUERY = images(6), images(5, seed=1)
LABELS = ["b", "b", "a", "a", "c", "c"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    learner_of(MAML(inner_lr=0.1)).save(tmp_path / "learner")
    return tmp_path / "learner"


def reseal(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the description, with checksums made right again: what someone who means harm would do."""
    description = json.loads((folder / DESCRIPTION).read_text())
    change(description)
    files = {DESCRIPTION: json.dumps(description).encode(), PARAMETERS: (folder / PARAMETERS).read_bytes()}
    for name, data in sealed(files).items():
        (folder / name).write_bytes(data)


@every_algorithm
def test_save_and_load_keep_every_bit_of_the_predictions(algorithm: Algorithm, tmp_path: Path) -> None:
    learner = learner_of(algorithm)
    learner.save(tmp_path)
    loaded = load_learner(tmp_path)
    assert (loaded.algorithm, loaded.model, loaded.spec) == (learner.algorithm, learner.model, learner.spec)
    assert loaded.preprocessing == PREPROCESSING and loaded.provenance == {"note": "untrained"}
    before, after = (one.adapt(SUPPORT, LABELS).predict_proba(QUERY) for one in (learner, loaded))
    assert np.array_equal(before, after)


@every_algorithm
def test_predictions(algorithm: Algorithm) -> None:
    task = learner_of(algorithm).adapt(SUPPORT, LABELS)
    probabilities = task.predict_proba(QUERY)
    assert task.classes == ("b", "a", "c")
    assert probabilities.shape == (5, 3) and probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    assert task.predict(QUERY) == [task.classes[i] for i in probabilities.argmax(1)]


def test_labels_may_come_one_by_one() -> None:
    learner = learner_of(ProtoNet())
    task = learner.adapt(SUPPORT, (label for label in LABELS))
    assert task.classes == ("b", "a", "c")
    assert np.array_equal(task.predict_proba(QUERY), learner.adapt(SUPPORT, LABELS).predict_proba(QUERY))


def test_tensor_labels_are_those_of_lists() -> None:
    learner = learner_of(ProtoNet())
    places = [1, 1, 0, 0, 2, 2]
    plain = learner.adapt(SUPPORT, places)
    for labels in (torch.tensor(places), list(torch.tensor(places)), np.array(places, np.uint8)):
        task = learner.adapt(torch.from_numpy(SUPPORT), labels)
        assert task.classes == (1, 0, 2) and all(type(label) is int for label in task.classes)
        assert np.array_equal(task.predict_proba(QUERY), plain.predict_proba(QUERY))
        assert task.predict(QUERY) == plain.predict(QUERY)


def test_a_picture_is_answered_once() -> None:
    task = learner_of(ProtoNet()).adapt(SUPPORT, LABELS)
    colour = np.random.default_rng(2).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    wanted = task.predict_proba([Image.fromarray(colour)])
    for alone in (colour, torch.from_numpy(colour), Image.fromarray(colour)):
        assert np.array_equal(task.predict_proba(alone), wanted)
    with pytest.raises(InputError, match="1 support image for 9 labels"):
        learner_of(ProtoNet()).adapt(Image.fromarray(colour), list("abcabcabc"))


def test_examples_may_come_one_by_one() -> None:
    learner = learner_of(ProtoNet())
    task = learner.adapt((image for image in SUPPORT), iter(LABELS))
    wanted = learner.adapt(SUPPORT, LABELS).predict_proba(QUERY)
    assert np.array_equal(task.predict_proba(image for image in QUERY), wanted)


def test_one_query_alone() -> None:
    inductive = learner_of(ProtoNet(batch_norm="inductive")).adapt(SUPPORT, LABELS)
    np.testing.assert_allclose(
        inductive.predict_proba(QUERY[:1]), inductive.predict_proba(QUERY)[:1], rtol=1e-4, atol=1e-6
    )
    with pytest.raises(InputError, match="at least two at once, or use batch_norm='inductive'"):
        learner_of(MAML(batch_norm="transductive")).adapt(SUPPORT, LABELS).predict(QUERY[:1])
    # ProtoNet normalises the query together with the support.
    with pytest.warns(BatchMatters, match="judged on 3 queries at once"):
        task = learner_of(ProtoNet(batch_norm="transductive")).adapt(SUPPORT, LABELS)
        assert task.predict_proba(QUERY[:1]).shape == (1, 3)


def test_inner_steps_at_adaptation() -> None:
    learner = learner_of(MAML(inner_lr=0.5, batch_norm="transductive"))
    theta = dict(learner.adapt(SUPPORT, LABELS, inner_steps=0).adapted.items())
    assert all(torch.equal(theta[name], learner.meta[name]) for name in theta)
    assert not torch.equal(learner.adapt(SUPPORT, LABELS).adapted["head.weight"], learner.meta["head.weight"])


def test_images_in_every_form(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    Image.fromarray(SUPPORT[0]).save(path)
    learner = learner_of(ProtoNet())
    rgb = np.repeat(SUPPORT[0][:, :, None], 3, axis=2)
    found = learner.compact([path, str(path), Image.open(path), SUPPORT[0], rgb])
    assert found.shape == (5, 1, 6, 6) and all(np.array_equal(found[0], other) for other in found)


def test_support_that_does_not_fit() -> None:
    learner = learner_of(MAML())
    assert learner.ways == 3 and learner_of(ProtoNet()).ways is None
    with pytest.raises(InputError, match="6 support images for 5 labels"):
        learner.adapt(SUPPORT, LABELS[:-1])
    with pytest.raises(InputError, match="has 2 classes, but this learner is 3-way"):
        learner.adapt(SUPPORT[:4], LABELS[:4])
    with pytest.raises(InputError, match="has 1 class; a task needs at least 2"):
        learner_of(ProtoNet()).adapt(SUPPORT[:2], LABELS[:2])
    assert learner_of(ProtoNet()).adapt(SUPPORT[:4], LABELS[:4]).classes == ("b", "a")


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ([], "no images given"),
        (QUERY.astype(np.float32), r"image 0 is an array of shape \(9, 7\) and type float32"),
        (QUERY[0, 0], r"x is an array of shape \[7\] and type uint8"),
        ([QUERY[0], QUERY[:, :, :5]], r"image 1 is an array of shape \(5, 9, 5\)"),
        ([QUERY[0], np.zeros((0, 4), np.uint8)], r"image 1 is an array of shape \(0, 4\)"),
    ],
    ids=["none", "floats", "one row", "many channels", "empty image"],
)
def test_wrong_queries_are_named(query: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        learner_of(ProtoNet()).adapt(SUPPORT, LABELS).predict(query)


@pytest.mark.parametrize("content", [b"", b"no image at all", None], ids=["empty", "text", "truncated"])
def test_an_unreadable_image_is_named(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "letter.png"
    Image.fromarray(images(1)[0]).save(path)
    path.write_bytes(path.read_bytes()[:60] if content is None else content)
    with pytest.raises(InputError, match=r"letter\.png cannot be read"):
        learner_of(ProtoNet()).adapt(SUPPORT, LABELS).predict([path])
    with pytest.raises(InputError, match=r"gone\.png cannot be read"):
        learner_of(ProtoNet()).adapt([SUPPORT[0], tmp_path / "gone.png"], ["a", "b"])


@pytest.mark.parametrize("name", [DESCRIPTION, PARAMETERS, MANIFEST])
@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_damage_is_refused(name: str, damage: str, folder: Path) -> None:
    data = bytearray((folder / name).read_bytes())
    if damage == "remove":
        (folder / name).unlink()
    else:
        data[len(data) // 2] ^= 1
        (folder / name).write_bytes(data[: len(data) // 2] if damage == "truncate" else data)
    with pytest.raises(InputError, match="does not hold a whole learner"):
        load_learner(folder)


def test_no_folder_at_all(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere does not hold a whole learner: manifest\.json is missing"):
        load_learner(tmp_path / "nowhere")


@pytest.mark.parametrize("manifest", ["{}", "[]", '{"files": []}', '{"files": {"learner.json": {}}}', "nonsense"])
def test_a_foreign_manifest_is_refused(manifest: str, folder: Path) -> None:
    (folder / MANIFEST).write_text(manifest)
    with pytest.raises(InputError, match="does not hold a whole learner"):
        load_learner(folder)


def test_a_manifest_without_the_parameters(folder: Path) -> None:
    for name, data in sealed({DESCRIPTION: (folder / DESCRIPTION).read_bytes()}).items():
        (folder / name).write_bytes(data)
    with pytest.raises(InputError, match="does not hold a whole learner"):
        load_learner(folder)


def test_an_outside_import_path_needs_trust(folder: Path) -> None:
    reseal(folder, lambda d: d.update(model={"kind": "custom", "path": "torch.nn:Linear"}))
    with pytest.raises(InputError, match=r"refusing to import 'torch.nn:Linear'.*trust=\['torch'\]"):
        load_learner(folder)
    with pytest.raises(InputError, match="torch.nn:Linear can't be called"):
        load_learner(folder, trust=["torch"])
    own = f"{__name__}:own_network"
    reseal(folder, lambda d: d.update(model={"kind": "custom", "path": own}))
    with pytest.raises(InputError, match="refusing to import"):
        load_learner(folder, trust=["torch"])
    assert load_learner(folder, trust=[__name__]).adapt(SUPPORT, LABELS).classes == ("b", "a", "c")


def test_an_algorithm_from_outside_needs_trust(folder: Path) -> None:
    reseal(folder, lambda d: d.update(algorithm={"kind": "os.path:join"}))
    with pytest.raises(InputError, match="refusing to import 'os.path:join'"):
        load_learner(folder)
    with pytest.raises(InputError, match="'os.path:join' is not of type Algorithm"):
        load_learner(folder, trust=["os"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["algorithm"].update(inner_lrr=1), "unknown key 'inner_lrr'. Did you mean 'inner_lr'"),
        (lambda d: d["algorithm"].update(kind="mamml"), "Did you mean 'maml'"),
        (lambda d: d.pop("spec"), "spec"),
        (lambda d: d.update(format=99), "format 99"),
        (lambda d: d["model"].update(hidden=[7]), "body.1.bias: the model wants .7., the file has .5."),
    ],
    ids=["key", "kind", "missing", "format", "shapes"],
)
def test_a_description_that_says_something_else(
    change: Callable[[dict[str, Any]], None], message: str, folder: Path
) -> None:
    reseal(folder, change)
    with pytest.raises(InputError, match=message):
        load_learner(folder)
