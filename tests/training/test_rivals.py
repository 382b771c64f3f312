"""What needs no training and stands beside runs on encoders and texts."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pytest
import torch

import metaray
from metaray import ClassStore, EpisodeSpec, Evaluation, Experiment
from metaray.algorithms import MAML
from metaray.data.draws import Draws
from metaray.data.raw_inputs import RawInputs, raw_inputs_of
from metaray.data.store_file import read_store
from metaray.data.verified import open_store
from metaray.errors import InputError
from metaray.experiment.experiment import Experiment as Described
from metaray.imports import reads_kind, writes_kind
from metaray.models import MLP, Encoder, Model
from metaray.models.encoders.embedding import embed_store
from metaray.models.frozen_body import FrozenBody, is_pretrained
from metaray.records.estimate import estimate
from metaray.training.rivals import Untrained, fresh, judged_untrained, rivals_of
from tests.models.encoders.test_embedded_stores import TEXTS, experiment, folder, store

__all__ = ["folder", "store"]
SHOWN = {"frozen_encoder": "class means of the frozen encoder", "tf_idf": "class means of TF-IDF"}


def scores(name: str, described: Described) -> np.ndarray:
    source, model = described.source, described.model
    rival = Untrained.of(name, source, lambda: fresh(model, source, 0))
    return judged_untrained(rival, described, "meta-test", device=torch.device("cpu")).score


@pytest.fixture
def vectors(store: str, folder: str, tmp_path: Path) -> str:
    embed_store(store, Encoder(path=folder), tmp_path / "vectors.arrow")
    return str(tmp_path / "vectors.arrow")


def on_texts(store: str, folder: str, **changes: Any) -> Experiment:
    fields: dict[str, Any] = {"model": Encoder(path=folder), "algorithm": MAML(inner_lr=0.5)}
    return experiment(store, **fields | changes)


class TestWhich:
    def test_by_source_and_model(self, store: str, folder: str, vectors: str) -> None:
        texts, embedded = ClassStore(path=store), ClassStore(path=vectors)
        assert rivals_of(texts, Encoder(path=folder)) == ("nearest_neighbor", "frozen_encoder", "tf_idf")
        assert rivals_of(texts, MLP()) == ("nearest_neighbor", "tf_idf")
        assert rivals_of(embedded, MLP()) == ("nearest_neighbor", "class_means", "tf_idf")

    def test_models_around_an_encoder_are_pretrained(self, folder: str) -> None:
        class Around(MLP):
            inside: Annotated[Model, reads_kind({}, Model, what="model"), writes_kind({})]

        assert is_pretrained(Around(inside=Encoder(path=folder))) and not is_pretrained(Around(inside=MLP()))


class TestScores:
    def test_the_same_encoder_by_either_way(self, store: str, folder: str, vectors: str) -> None:
        """Texts through the encoder, and vectors that it made before, are the same episodes with the same scores."""
        alone, cached = scores("frozen_encoder", on_texts(store, folder)), scores("class_means", experiment(vectors))
        np.testing.assert_allclose(alone, cached)
        assert len(set(alone.tolist())) > 1

    def test_the_same_texts_by_either_way(self, store: str, folder: str, vectors: str) -> None:
        assert np.array_equal(scores("tf_idf", on_texts(store, folder)), scores("tf_idf", experiment(vectors)))
        assert estimate(scores("tf_idf", experiment(vectors))).mean > 0.8, "texts begin with the word of their class"

    def test_each_input_goes_through_once_whatever_is_beside_it(self, folder: str) -> None:
        class Counting(torch.nn.Module):
            seen = 0

            def forward(self, x: Any) -> torch.Tensor:
                self.seen += len(x["tokens"])
                assert x["mask"].all()
                return body(x)  # type: ignore[no-any-return]

        body, network = Encoder(path=folder).body(), Counting()
        remembering = FrozenBody(network)

        def read(texts: list[str]) -> dict[str, torch.Tensor]:
            return TEXTS.normalize({name: torch.from_numpy(part) for name, part in TEXTS.read(texts).items()})

        first = remembering(read(["play rain", "money", "play rain"]))
        again = remembering(read(["money", "please play my song now", "play rain"]))
        assert network.seen == 3
        assert torch.equal(first[0], first[2]) and torch.equal(first[0], again[2]) and torch.equal(first[1], again[0])
        torch.testing.assert_close(first, body(read(["play rain", "money", "play rain"])))

    def test_of_plain_numbers(self) -> None:
        network = torch.nn.Linear(3, 2)
        x = torch.randn(4, 3)
        torch.testing.assert_close(FrozenBody(network)(x), network(x))


class TestRuns:
    @pytest.mark.parametrize("frozen", [True, pytest.param(False, marks=pytest.mark.slow)])
    def test_runs_and_evaluations_report_both(
        self, frozen: bool, store: str, folder: str, train: Callable[..., Any], tmp_path: Path
    ) -> None:
        described = on_texts(store, folder, model=Encoder(path=folder, frozen=frozen))
        told = train(described, register=False)
        result = told.result
        assert list(result.baselines) == ["nearest_neighbor", "frozen_encoder", "tf_idf"]
        for name, words in SHOWN.items():
            assert result.baselines[name].score == estimate(scores(name, described))
            assert words in dict(result.rivals) and f"test/accuracy_{name}" in result.metrics
        told.learner.save(tmp_path / "learner")
        judged = metaray.evaluate(str(tmp_path / "learner"), episodes=8, progress=False)
        assert judged.baselines["frozen_encoder"].score == result.baselines["frozen_encoder"].score
        assert judged.baselines["tf_idf"].score == result.baselines["tf_idf"].score
        assert "class means of the frozen encoder: " in str(judged)

    @pytest.mark.slow
    def test_weights_that_are_nowhere_any_more(
        self, store: str, folder: str, train: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A learner of a frozen encoder holds it; of one that was trained, nobody may have the former weights."""
        models = {"held": Encoder(path=folder), "trained": Encoder(path=folder, frozen=False)}
        plans = {name: on_texts(store, folder, model=model) for name, model in models.items()}
        learners = {name: train(plan, register=False).learner for name, plan in plans.items()}
        (Path(folder) / "model.safetensors").unlink()
        monkeypatch.setenv("METARAY_CACHE", str(tmp_path / "another node"))
        for name, learner in learners.items():
            learner.save(tmp_path / name)
            judged = metaray.evaluate(str(tmp_path / name), episodes=8, progress=False)
            assert ("frozen_encoder" in judged.baselines) == (name == "held") and "tf_idf" in judged.baselines

    @pytest.mark.slow
    def test_a_first_champion_surpasses_them(self, store: str, folder: str, train: Callable[..., Any]) -> None:
        """Four steps of a random encoder do not make more of the texts than their first words."""
        evaluation = Evaluation(every=2, val_episodes=40, test_episodes=8)
        told = train(on_texts(store, folder, evaluation=evaluation))
        assert told.decision is not None and not told.decision.promote
        assert "a first champion must surpass the" in told.decision.reason


class TestRawInputs:
    def test_tasks_are_those_of_the_vectors(self, store: str, vectors: str) -> None:
        raw = raw_inputs_of(ClassStore(path=vectors))
        assert isinstance(raw, RawInputs) and raw.preprocessing == TEXTS and raw.feature_shape == (None,)
        spec = EpisodeSpec(ways=2, shots=2, queries=2)
        for index in range(5):
            one, other = (
                each.sample_task(Draws(0, "meta-test", index), "meta-test", spec)
                for each in (raw, ClassStore(path=store))
            )
            assert np.array_equal(one.support.x["values"], other.support.x["values"])
            assert np.array_equal(one.query.x["lengths"], other.query.x["lengths"])
            assert np.array_equal(one.class_ids, other.class_ids)

    def test_stores_without_them(self, store: str) -> None:
        assert raw_inputs_of(ClassStore(path=store)) is None

    def test_a_changed_text_is_seen(self, vectors: str, tmp_path: Path) -> None:
        file = open_store(Path(vectors))
        assert file.raw is not None and len(file.raw) == 72
        data = bytearray(Path(vectors).read_bytes())
        place = data.find(file.raw.values.tobytes())
        assert place > 0
        data[place] ^= 1
        (tmp_path / "damaged.arrow").write_bytes(data)
        with pytest.raises(InputError, match="damaged: its raw inputs don't match their fingerprint"):
            read_store(tmp_path / "damaged.arrow", verify=True)


def test_a_baseline_needs_its_weights(store: str) -> None:
    with pytest.raises(InputError, match="the weights that the encoder had before it was trained are not here"):
        Untrained.of("frozen_encoder", ClassStore(path=store), lambda: None)
