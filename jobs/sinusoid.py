"""Sinusoid regression (Finn et al., ICML 2017, section 5.1): learn a sine wave of unknown amplitude and phase from 10
points. Each recipe is a plain function that returns an `Experiment`; nothing to download.

Network, meta-batch, inner and outer learning rate are the paper's. Departures: 15,000 outer steps at most instead of
70,000, with an outer rate that falls to zero, which suits minutes on two CPU cores; and 100 queries a task in judging,
which narrows the interval. The network has no batch norm; `batch_norm="transductive"` is what the records say.
"""

from typing import Any

from metaray.algorithms import (
    ANIL,
    BOIL,
    CAVIA,
    CNP,
    FOMAML,
    IMAML,
    MAML,
    MAMLPP,
    R2D2,
    Algorithm,
    Baseline,
    LearnedOptimizer,
    MetaOptNetRidge,
    MetaSGD,
    Reptile,
)
from metaray.config import replace
from metaray.data import FunctionFamily
from metaray.episodes.episode import EpisodeSpec
from metaray.experiment import Evaluation, Experiment, Optimizer
from metaray.models import MLP
from metaray.tuning.search import Search
from metaray.tuning.space import loguniform

PLAIN: dict[str, Any] = {"momentum": 0, "dampening": 0, "weight_decay": 0}
"""Fine-tuning by gradient descent without any extras, as the paper has it."""


def maml() -> Experiment:
    """MAML trained with one inner step of 0.01, judged after ten."""
    return Experiment(
        name="sinusoid-maml",
        source=FunctionFamily(),
        episodes=EpisodeSpec(shots=10, queries=10),
        model=MLP(hidden=(40, 40), batch_norm=False),
        algorithm=MAML(inner_lr=0.01, inner_steps=1, batch_norm="transductive"),
        optimizer=Optimizer(outer_lr=1e-3, schedule="cosine"),
        meta_batch_size=25,
        num_steps=15000,
        evaluation=Evaluation(
            episodes=EpisodeSpec(shots=10, queries=100),
            inner_steps=10,
            every=1500,
            val_episodes=200,
            test_episodes=1000,
        ),
        chunk_size=13,  # two chunks: each of up to two workers maps over its half at once
    )


def maml_inner_lr_population() -> Search:
    """Population-based training: which inner learning rate at which time. The winner's is a schedule over steps."""
    return Search(
        experiment=maml(),
        space={"algorithm.inner_lr": loguniform(1e-3, 1e-1)},
        searcher="pbt",
        scheduler="none",
        trials=8,
    )


def fomaml() -> Experiment:
    """First-order MAML."""
    return _with(FOMAML(inner_lr=0.01, inner_steps=1))


def reptile() -> Experiment:
    """Reptile with ten inner steps of gradient descent on half of a task's points each."""
    algorithm = Reptile(inner_optimizer="sgd", inner_lr=0.02, inner_steps=10, batch_size=10, eval_steps=10)
    return _with(algorithm, num_steps=8000, optimizer=Optimizer(kind="sgd", outer_lr=1.0, schedule="cosine"))


def anil() -> Experiment:
    """MAML that adapts the output layer alone, which takes larger and more steps."""
    return _with(ANIL(inner_lr=0.05, inner_steps=5), judged_after=5)


def boil() -> Experiment:
    """MAML that adapts all but the output layer."""
    return _with(BOIL(inner_lr=0.01, inner_steps=1))


def meta_sgd() -> Experiment:
    """Meta-SGD, judged after the one step that its learned rates are made for."""
    return _with(MetaSGD(inner_lr=0.01, inner_steps=1), judged_after=1)


def mamlpp() -> Experiment:
    """MAML++ with five inner steps, a multi-step loss in the first third of training.

    The outer gradient is clipped: without, learned rates grow until five steps on some steep task diverge.
    """
    algorithm = MAMLPP(inner_lr=0.01, inner_steps=5, msl_steps=2000)
    optimizer = Optimizer(outer_lr=1e-3, schedule="cosine", clip_norm=1.0)
    return _with(algorithm, num_steps=6000, judged_after=5, optimizer=optimizer)


def imaml() -> Experiment:
    """Implicit MAML with sixteen inner steps of half the size, as ten of 0.01 diverge on some task after long training.

    One damped step of conjugate gradients: so few inner steps do not end in a minimum, and where the inner loss curves
    downwards more steps of CG go astray.
    """
    algorithm = IMAML(inner_lr=0.005, inner_steps=16, proximity=0.5, cg_steps=1, damping=1)
    return _with(algorithm, optimizer=Optimizer(outer_lr=1e-3, schedule="cosine", clip_norm=10))


def cavia() -> Experiment:
    """CAVIA with five context numbers and an inner rate of 1, as its authors have it on sinusoids."""
    return _with(CAVIA(inner_lr=1.0, inner_steps=1, context_size=5), judged_after=1)


def cnp() -> Experiment:
    """Conditional neural processes."""
    return _with(CNP())


def r2d2() -> Experiment:
    """Ridge regression of learned strength on learned features."""
    return _with(R2D2(initial_regularizer=1.0))


def metaoptnet_ridge() -> Experiment:
    """Ridge regression of fixed strength on learned features."""
    return _with(MetaOptNetRidge(regularizer=1.0))


def learned_optimizer() -> Experiment:
    """An LSTM in place of gradient descent, in five steps."""
    return _with(LearnedOptimizer(inner_steps=5), num_steps=1500, judged_after=5)


def baseline() -> Experiment:
    """One network trained on all tasks together, and fine-tuned on each in ten steps of 0.01."""
    return _with(Baseline(inner_lr=0.01, inner_steps=10, **PLAIN))


def oracle() -> Experiment:
    """The same network told each task's amplitude and phase: it has nothing to adapt to."""
    told = _with(Baseline(inner_lr=0.01, inner_steps=10, **PLAIN), judged_after=0)
    return replace(told, name="sinusoid-oracle", source=FunctionFamily(oracle=True))


def _with(algorithm: Algorithm, *, judged_after: int = 10, **changes: Any) -> Experiment:
    """The base with another algorithm, judged after so many inner steps, if it takes any."""
    base = maml()
    every = changes.get("num_steps", base.num_steps) // 10
    steps = judged_after if algorithm.gradient_steps else None
    evaluation = replace(base.evaluation, inner_steps=steps, every=every)
    name = f"sinusoid-{algorithm.kind.replace('_', '-')}"
    algorithm = replace(algorithm, batch_norm="transductive")
    return replace(base, name=name, algorithm=algorithm, evaluation=evaluation, **changes)
