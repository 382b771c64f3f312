"""What needs no training and stands beside a run or a learner: which, what each compares, and how it does.

Besides the baselines of inputs and sources (`metaray.algorithms.per_task`) these are class means of the very encoder
that a model starts from, and of texts TF-IDF: what training must surpass to have been worth while.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from metaray.algorithms.per_task import BASELINES, baselines_of
from metaray.data.draws import Split
from metaray.data.preprocessing import TextPreprocessing
from metaray.data.raw_inputs import raw_inputs_of
from metaray.data.source import Source
from metaray.errors import InputError
from metaray.experiment.experiment import Experiment
from metaray.learners.learner import Learner
from metaray.models.comparison import Comparing, Comparison
from metaray.models.frozen_body import FrozenBody, is_pretrained
from metaray.models.lora import LoRA
from metaray.models.model import Model, build_seeded
from metaray.models.term_weights import fitted
from metaray.tasks.baselines import FROZEN, TF_IDF
from metaray.training.device import execution
from metaray.training.evaluation import Scores, can_be_mapped, evaluate, judge_of
from metaray.training.outer_loop import chunk_size_of, context_of
from metaray.training.reduction import Reducer


def rivals_of(source: Source, model: Model | None = None) -> tuple[str, ...]:
    """The names of what stands beside the scores of a model on a source, in the order of reports."""
    names = list(baselines_of(source, source.preprocessing))
    if source.task.has_classes:
        names += [FROZEN] if model is not None and is_pretrained(model) else []
        names += [TF_IDF] if _texts_of(source) is not None else []
    return tuple(names)


@dataclass(frozen=True)
class Untrained:
    """A baseline.

    Attributes:
        name: A key of `BASELINES`.
        network: What it compares.
        source: Source of its tasks, which are those of the experiment, perhaps of other views of the examples.
    """

    name: str
    network: Comparing
    source: Source

    @classmethod
    def of(cls, name: str, source: Source, pretrained: Callable[[], nn.Module | None]) -> "Untrained":
        """The one of a name.

        Args:
            name: One of `rivals_of`.
            source: Source of the experiment.
            pretrained: Gives the network as it was before any training, without a head.

        Raises:
            InputError: If the pretrained weights are not there.
        """
        if name == FROZEN:
            found = pretrained()
            if found is None:
                raise InputError("the weights that the encoder had before it was trained are not here")
            return cls(name, FrozenBody(found), source)
        if name == TF_IDF:
            texts = _texts_of(source)
            assert texts is not None, source
            return cls(name, fitted(texts[0], texts[1]), texts[0])
        return cls(name, Comparison(source.preprocessing), source)


def untrained_of(name: str, learner: Learner, experiment: Experiment) -> Untrained:
    """The baseline of a name beside a learner."""
    return Untrained.of(name, experiment.source, lambda: pretrained_of(learner, experiment))


def rivals_beside(learner: Learner, experiment: Experiment) -> tuple[str, ...]:
    """Names as `rivals_of` gives them; a learner whose pretrained weights are nowhere any more goes without these."""
    names = rivals_of(experiment.source, learner.model)
    if FROZEN in names and pretrained_of(learner, experiment) is None:
        return tuple(name for name in names if name != FROZEN)
    return names


def fresh(model: Model, source: Source, seed: int) -> nn.Module:
    """A model's network without a head, as it is before any training.

    Low-rank factors do nothing then, and what they are for, and beside, may be parts of the head.
    """
    model = model.model if isinstance(model, LoRA) else model
    return build_seeded(model, source.feature_shape, None, seed=seed, preprocessing=source.preprocessing)


def pretrained_of(learner: Learner, experiment: Experiment) -> nn.Module | None:
    """The network that a learner started from, without a head.

    What was frozen the learner holds. Of an encoder that was trained itself, the weights are where it came from, or
    nowhere any more.
    """
    network = fresh(learner.model, experiment.source, learner.seed)
    wanted = set(network.state_dict())
    if wanted <= learner.state.keys():
        network.load_state_dict({name: learner.state[name] for name in wanted}, strict=False, assign=True)
        return network
    try:
        experiment.model.check_start()
        return fresh(experiment.model, experiment.source, learner.seed)
    except InputError:
        return None


def judged_untrained(
    rival: Untrained,
    experiment: Experiment,
    split: Split,
    *,
    device: torch.device,
    episodes: range | None = None,
    reducer: Reducer | None = None,
    progress: Callable[[int], None] | None = None,
) -> Scores:
    """Scores of a baseline; arguments as of `evaluate_learner`, and the reducer of a run's ranks."""
    judge = judge_of(experiment, split)._replace(source=rival.source)
    if episodes is not None:
        judge = judge._replace(first=episodes.start, episodes=len(episodes))
    algorithm = BASELINES[rival.name]
    with execution(experiment, device):
        context = context_of(experiment, rival.network.to(device), training=False)
        size = chunk_size_of(experiment, device)
        if size > 1 and not can_be_mapped(algorithm, {}, context, judge, device):
            size = 1
        options: dict[str, Any] = {"device": device, "chunk_size": size, "reducer": reducer, "progress": progress}
        return evaluate(algorithm, {}, context, judge, **options)


def _texts_of(source: Source) -> tuple[Source, TextPreprocessing] | None:
    """The texts that a source is of, or that its vectors were made of, if they can be counted."""
    found: Source | None = source
    if not isinstance(source.preprocessing, TextPreprocessing):
        found = raw_inputs_of(source)
    if found is None or type(found).draw_examples is Source.draw_examples:
        return None
    texts = found.preprocessing
    return (found, texts) if isinstance(texts, TextPreprocessing) else None
