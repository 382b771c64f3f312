"""Meta-training without labels on Omniglot: the parts of the benchmark."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from jobs.benchmarks.unsupervised.__main__ import RUNS, experiment_of
from jobs.benchmarks.unsupervised.embeddings import trained, write_vectors
from jobs.benchmarks.unsupervised.networks import EMBEDDINGS, SIZE, Interpolating, altered
from jobs.benchmarks.unsupervised.page import INTRODUCTION, page
from metaray.data import CACTUs, ClassStore, Glyphs
from metaray.data.partitions import cluster_store
from metaray.data.verified import open_store
from metaray.episodes.episode import EpisodeSpec


@pytest.fixture
def images() -> torch.Tensor:
    store = Glyphs().store
    return torch.from_numpy(np.concatenate([store.examples(one) for one in range(12)])[:64]).float() / 255


@pytest.mark.parametrize("kind", EMBEDDINGS)
def test_an_embedding_of_steps_given_is_the_same_again(kind: str, images: torch.Tensor) -> None:
    EMBEDDINGS[kind].batch, batch = 16, EMBEDDINGS[kind].batch
    try:
        (one, steps), (other, _) = (trained(kind, images, 0, 3, seed=1) for _ in range(2))
    finally:
        EMBEDDINGS[kind].batch = batch
    assert steps == 3 and one.body(images).shape == (64, SIZE)
    assert torch.equal(one.body(images), other.body(images))
    assert not torch.equal(one.body(images), EMBEDDINGS[kind]().eval().body(images))


def test_altered_copies_are_the_same_drawing(images: torch.Tensor) -> None:
    found = altered(images, torch.Generator().manual_seed(0))
    assert found.shape == images.shape and found.min() >= 0 and found.max() <= 1 and not torch.equal(found, images)
    shares = found.sum((1, 2, 3)) / images.sum((1, 2, 3))
    assert 0.5 < float(shares.median()) < 1.2


def test_the_critic_learns_from_no_fooling(images: torch.Tensor) -> None:
    """With nothing but what the auto-encoder gains by fooling it, the critic has no gradient."""
    torch.manual_seed(0)
    network = Interpolating()
    network.loss(images[:8], torch.Generator().manual_seed(0)).backward()
    whole = [parameter.grad.clone() for parameter in network.critic.parameters() if parameter.grad is not None]
    network.zero_grad()
    Interpolating.regularized, before = 100.0, Interpolating.regularized
    try:
        network.loss(images[:8], torch.Generator().manual_seed(0)).backward()
    finally:
        Interpolating.regularized = before
    again = [parameter.grad for parameter in network.critic.parameters() if parameter.grad is not None]
    assert whole and all(torch.allclose(a, b, rtol=1e-3, atol=1e-5) for a, b in zip(whole, again, strict=True))


@pytest.mark.slow
def test_from_vectors_to_tasks(tmp_path: Path) -> None:
    store = Glyphs().store
    file = open_store(Path(store.path))
    write_vectors(EMBEDDINGS["contrastive"]().eval(), file, tmp_path / "vectors.arrow", "contrastive")
    vectors = open_store(tmp_path / "vectors.arrow").examples
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    cluster_store(str(tmp_path / "vectors.arrow"), tmp_path / "p.arrow", clusters=20, partitions=2)
    source = CACTUs(source=ClassStore(path=store.path), partitions=str(tmp_path / "p.arrow"))
    experiment = experiment_of("cactus-contrastive-protonet", source, seed=0)
    assert experiment.episodes == EpisodeSpec(ways=20, shots=1, queries=5)
    assert experiment_of("umtra-maml", source, seed=0).episodes == EpisodeSpec(ways=5, shots=1, queries=1)


def test_the_page_says_what_is_on_record(tmp_path: Path) -> None:
    assert page(tmp_path, list(RUNS)) == INTRODUCTION
    score = {"mean": 0.6884, "half_width": 0.01, "episodes": 1000}
    made: dict[str, Any] = {"kind": "acai", "about": "x", "size": 64, "steps": 9, "batch": 64, "core_minutes": 5.0}
    made |= {"partitions": 2, "clusters": 9, "clustering_core_minutes": 1.0}
    made |= {"meta_test_class_means_1": score, "meta_test_class_means_5": score}
    record = {
        "run": "cactus-acai-maml",
        "meta_test": {"1-shot": score, "5-shot": score},
        "nearest_neighbor": score,
        "protocol": "5-way",
        "trained_at": "5-way 1-shot",
        "steps": 7,
        "core_minutes": 4.0,
        "embedding": made,
        "commit": "0123456789",
        "torch": "2",
        "device": "CPU",
        "command": "python -m x",
    }
    (tmp_path / "cactus-acai-maml.json").write_text(json.dumps(record))
    told = page(tmp_path, list(RUNS))
    assert (
        "| CACTUs, ACAI | MAML, trained at 5-way 1-shot | 68.84 ± 1.00 | 68.84 ± 1.00 | 68.84 / 87.78 | 4.0 | 7 |"
        in told
    )
    assert "| ACAI, class means of it | - | 68.84 ± 1.00 | 68.84 ± 1.00 | - | 5.0 (the embedding) | 9 |" in told
