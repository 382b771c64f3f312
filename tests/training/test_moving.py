"""Episodes on their way; the streams of a GPU are played here by objects that note what they are asked for."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch

from metaray.episodes.sampler import sample_meta_batch
from metaray.episodes.tensors import chunks
from metaray.experiment.experiment import Experiment
from metaray.training import moving
from metaray.training.moving import Chunk, moved

MakeExperiment = Callable[..., Experiment]
CPU, GPU = torch.device("cpu"), torch.device("cuda")


def given(experiment: Experiment) -> list[Chunk]:
    batch = sample_meta_batch(experiment.source, experiment.episodes, "meta-train", 0, range(5))
    return list(chunks(batch, 2, CPU, experiment.source, "meta-train"))


def test_on_a_cpu_nothing_happens(make_experiment: MakeExperiment) -> None:
    expected = given(make_experiment())
    found = list(moved(iter(expected), CPU))
    assert len(found) == 3 and all(one is other for one, other in zip(found, expected, strict=True))


class Stream:
    def __init__(self, told: list[str]) -> None:
        self.told = told

    def wait_stream(self, other: "Stream") -> None:
        assert other is not self
        self.told.append("wait")


def test_on_a_gpu_each_is_prepared_beside_and_waited_for_before_it_is_used(
    make_experiment: MakeExperiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    computing, beside = Stream(told), Stream(told)

    @contextmanager
    def on(stream: Stream) -> Iterator[None]:
        assert stream is beside
        told.append("beside")
        yield
        told.append("back")

    monkeypatch.setattr(moving, "_stream_beside", lambda device: beside)
    monkeypatch.setattr(torch.cuda, "stream", on)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: computing)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda tensor, stream: told.append(str(stream is computing)))

    def made() -> Iterator[Chunk]:
        for chunk in given(make_experiment()):
            told.append("made")
            yield chunk

    told.extend("used" for _ in moved(made(), GPU))
    each = ["beside", "made", "back", "wait", *["True"] * 6, "used"]
    assert told == each * 3 + ["beside", "back"]
