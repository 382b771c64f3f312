"""Every algorithm on Omniglot, 5-way, with hyperparameters that suit it: what docs/fidelity.md was made with.

`metaray train jobs/family.py:reptile --set source.path=omniglot.arrow`, or `omniglot("reptile", shots=1)` in Python.
"""

from typing import Any, NamedTuple

from metaray.algorithms import ALGORITHMS
from metaray.data import ClassStore
from metaray.episodes.episode import EpisodeSpec
from metaray.models import Conv4, Model
from metaray.training.experiment import Evaluation, Experiment, Precision
from metaray.training.optimizer import Optimizer

STRIDED = Conv4(downsample="stride")
POOLED = Conv4()
FAST_CPU = Precision(dtype="bfloat16", channels_last=True)
COSINE = Optimizer(outer_lr=1e-3, schedule="cosine")


class Plan(NamedTuple):
    """How one algorithm is trained; what is None is as for all.

    Attributes:
        fields: of the algorithm.
        model: strided Conv4 for gradient-based algorithms (Finn et al.), pooled for the others (Vinyals et al.).
        ways: of training.
        shots: of training; None takes those it is judged at.
        queries: of training, a class.
        meta_batch_size: episodes an outer step.
        optimizer: of the outer loop.
        eval_steps: inner steps when judged; None takes the algorithm's own.
        annealed: fields that are a share of `num_steps`.
        precision: of the network.
    """

    fields: dict[str, Any] = {}
    model: Model = STRIDED
    ways: int = 5
    shots: int | None = None
    queries: int = 5
    meta_batch_size: int = 8
    optimizer: Optimizer = COSINE
    eval_steps: int | None = None
    annealed: dict[str, float] = {}
    precision: Precision = FAST_CPU


EMBEDDING = Plan(model=POOLED, ways=20, meta_batch_size=2)

PLANS: dict[str, Plan] = {
    "maml": Plan({"inner_lr": 0.4, "inner_steps": 1}, eval_steps=3),
    "fomaml": Plan({"inner_lr": 0.4, "inner_steps": 1}, eval_steps=3),
    "reptile": Plan(
        {"inner_lr": 1e-3, "inner_steps": 5, "batch_size": 10, "eval_steps": 50},
        queries=10,
        meta_batch_size=5,
        optimizer=Optimizer(kind="sgd", outer_lr=1.0, schedule="cosine"),
    ),
    "anil": Plan({"inner_lr": 0.5, "inner_steps": 3}),
    "boil": Plan({"inner_lr": 0.5, "inner_steps": 1}),
    "meta_sgd": Plan({"inner_lr": 0.1, "inner_steps": 1}),
    "mamlpp": Plan({"inner_lr": 0.1, "inner_steps": 3}, annealed={"msl_steps": 0.2, "first_order_steps": 0.1}),
    "imaml": Plan({"inner_lr": 0.2, "inner_steps": 8, "proximity": 0.5, "cg_steps": 3}),
    "cavia": Plan({"inner_lr": 1.0, "inner_steps": 2}),
    "proto_maml": Plan({"inner_lr": 0.05, "inner_steps": 1}),
}


def omniglot(
    kind: str = "maml", shots: int = 5, *, store: str = "omniglot.arrow", seed: int = 0, num_steps: int = 5000
) -> Experiment:
    """The experiment of one algorithm.

    Args:
        kind: key of `ALGORITHMS`.
        shots: K of the tasks it is judged on.
        store: what `metaray data import omniglot` wrote.
        seed: of weights and training episodes.
        num_steps: outer steps.
    """
    plan = PLANS.get(kind, EMBEDDING)
    annealed = {name: round(share * num_steps) for name, share in plan.annealed.items()}
    return Experiment(
        name=f"omniglot-{kind.replace('_', '-')}-{shots}shot",
        source=ClassStore(path=store, split="vinyals", rotations=True),
        episodes=EpisodeSpec(ways=plan.ways, shots=plan.shots or shots, queries=plan.queries),
        model=plan.model,
        algorithm=ALGORITHMS[kind].parse({**plan.fields, **annealed}, where=kind),
        optimizer=plan.optimizer,
        meta_batch_size=plan.meta_batch_size,
        num_steps=num_steps,
        evaluation=Evaluation(
            episodes=EpisodeSpec(ways=5, shots=shots, queries=shots),
            inner_steps=plan.eval_steps,
            every=500,
            val_episodes=100,
            test_episodes=1000,
        ),
        precision=plan.precision,
        seed=seed,
    )
