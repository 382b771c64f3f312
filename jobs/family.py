"""Every algorithm on Omniglot, 5-way, with hyperparameters that suit it: what docs/fidelity.md was made with.

`metaray train jobs/family.py:reptile --set num_steps=20000`, or `omniglot("reptile", shots=1)` in Python. The functions
at the end are one an algorithm that trains, each 5-way 5-shot. All have transductive batch norm, as most papers do.
"""

from typing import Any, NamedTuple

from metaray.algorithms import ALGORITHMS
from metaray.algorithms.task_shape import TaskShape
from metaray.data import ClassStore
from metaray.episodes.episode import EpisodeSpec
from metaray.errors import unknown
from metaray.experiment import Evaluation, Experiment, Optimizer, Precision
from metaray.models import Conv4, Model

STRIDED = Conv4(downsample="stride")
POOLED = Conv4()
FAST_CPU = Precision(dtype="bfloat16", channels_last=True)
COSINE = Optimizer(outer_lr=2e-3, schedule="cosine")


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
        annealed: fields that are a share of `num_steps`, the argument: `--set num_steps` does not change them.
        precision: of the network.
    """

    fields: dict[str, Any] = {}
    model: Model = STRIDED
    ways: int = 5
    shots: int | None = None
    queries: int = 5
    meta_batch_size: int = 4
    optimizer: Optimizer = COSINE
    eval_steps: int | None = None
    annealed: dict[str, float] = {}
    precision: Precision = FAST_CPU


EMBEDDING = Plan(model=POOLED, ways=20, meta_batch_size=2)

PLANS: dict[str, Plan] = {
    "maml": Plan({"inner_lr": 0.4, "inner_steps": 1}, eval_steps=3),
    "fomaml": Plan({"inner_lr": 0.4, "inner_steps": 1}, eval_steps=3),
    "reptile": Plan(
        {"inner_lr": 5e-3, "inner_steps": 5, "batch_size": 10, "eval_steps": 20},
        meta_batch_size=5,  # with Adam outside, as section 3 of the paper suggests: plain steps need ten times as many
    ),
    "anil": Plan({"inner_lr": 0.5, "inner_steps": 3}),
    "boil": Plan({"inner_lr": 0.5, "inner_steps": 1}),
    "meta_sgd": Plan({"inner_lr": 0.1, "inner_steps": 1}),
    "mamlpp": Plan({"inner_lr": 0.1, "inner_steps": 3}, annealed={"msl_steps": 0.2, "first_order_steps": 0.1}),
    "imaml": Plan({"inner_lr": 0.4, "inner_steps": 3, "proximity": 0.2, "cg_steps": 1, "damping": 2}),
    "cavia": Plan({"inner_steps": 2}),
    "proto_maml": Plan({"inner_lr": 0.05, "inner_steps": 1}),
    "matchingnet": Plan({"temperature": 0.1}, model=POOLED, ways=20, meta_batch_size=2),
    "relationnet": Plan({"channels": 64}, model=Conv4(pools=2), queries=10),
    "metaoptnet_svm": Plan({"initial_scale": 10}, model=POOLED, ways=10),
    # A deep h makes r one number early on, and the next of its dimensions come one by one.
    "cnp": Plan(
        {"encoder": (), "representation": 64, "decoder": (512, 128)},
        optimizer=Optimizer(outer_lr=1e-3, schedule="cosine"),
    ),
    "learned_optimizer": Plan({"inner_steps": 5}, model=Conv4(channels=16, downsample="stride")),
    # A training batch of theirs is both sides of an episode, whatever it will be judged at.
    "baseline": Plan({"inner_lr": 0.1}, model=POOLED, ways=60, shots=1, queries=1, meta_batch_size=2),
    "baselinepp": Plan({"inner_lr": 0.1}, model=POOLED, ways=60, shots=1, queries=1, meta_batch_size=2),
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

    Raises:
        InputError: for an unknown algorithm.
    """
    if kind not in ALGORITHMS:
        raise unknown("algorithm", kind, ALGORITHMS)
    plan = PLANS.get(kind) or _plan_of(kind)
    annealed = {name: round(share * num_steps) for name, share in plan.annealed.items()}
    return Experiment(
        name=f"omniglot-{kind.replace('_', '-')}-{shots}shot",
        source=ClassStore(path=store, split="vinyals", rotations=True),
        episodes=EpisodeSpec(ways=plan.ways, shots=plan.shots or shots, queries=plan.queries),
        model=plan.model,
        algorithm=ALGORITHMS[kind].parse({"batch_norm": "transductive", **plan.fields, **annealed}, where=kind),
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


def _plan_of(kind: str) -> Plan:
    """Where no plan is written down: many ways make the most of an embedding, if the algorithm takes any number."""
    algorithm = ALGORITHMS[kind]()
    embeds = algorithm.outputs(TaskShape(ways=5)) is None and not algorithm.fixed_ways
    return EMBEDDING if embeds else Plan()


def maml() -> Experiment:
    """`omniglot("maml")`."""
    return omniglot("maml")


def fomaml() -> Experiment:
    """`omniglot("fomaml")`."""
    return omniglot("fomaml")


def reptile() -> Experiment:
    """`omniglot("reptile")`."""
    return omniglot("reptile")


def anil() -> Experiment:
    """`omniglot("anil")`."""
    return omniglot("anil")


def boil() -> Experiment:
    """`omniglot("boil")`."""
    return omniglot("boil")


def meta_sgd() -> Experiment:
    """`omniglot("meta_sgd")`."""
    return omniglot("meta_sgd")


def mamlpp() -> Experiment:
    """`omniglot("mamlpp")`."""
    return omniglot("mamlpp")


def imaml() -> Experiment:
    """`omniglot("imaml")`."""
    return omniglot("imaml")


def cavia() -> Experiment:
    """`omniglot("cavia")`."""
    return omniglot("cavia")


def proto_maml() -> Experiment:
    """`omniglot("proto_maml")`."""
    return omniglot("proto_maml")


def protonet() -> Experiment:
    """`omniglot("protonet")`."""
    return omniglot("protonet")


def matchingnet() -> Experiment:
    """`omniglot("matchingnet")`."""
    return omniglot("matchingnet")


def relationnet() -> Experiment:
    """`omniglot("relationnet")`."""
    return omniglot("relationnet")


def r2d2() -> Experiment:
    """`omniglot("r2d2")`."""
    return omniglot("r2d2")


def metaoptnet_ridge() -> Experiment:
    """`omniglot("metaoptnet_ridge")`."""
    return omniglot("metaoptnet_ridge")


def metaoptnet_svm() -> Experiment:
    """`omniglot("metaoptnet_svm")`."""
    return omniglot("metaoptnet_svm")


def cnp() -> Experiment:
    """`omniglot("cnp")`."""
    return omniglot("cnp")


def learned_optimizer() -> Experiment:
    """`omniglot("learned_optimizer")`."""
    return omniglot("learned_optimizer")


def baseline() -> Experiment:
    """`omniglot("baseline")`."""
    return omniglot("baseline")


def baselinepp() -> Experiment:
    """`omniglot("baselinepp")`."""
    return omniglot("baselinepp")
