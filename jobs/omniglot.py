"""Omniglot recipes (Lake et al., Science 2015). Each is a plain function that returns an `Experiment`.

They reproduce papers, so their batch norm is transductive: a query is normalised together with the others of its batch.
For a learner that is to answer single queries add `--set algorithm.batch_norm=inductive`.

Build the store once: `metaray data import omniglot FOLDER_OR_ZIPS --out omniglot.arrow`.
Budgets suit two CPU cores; on a GPU raise `num_steps` and `meta_batch_size`.
"""

from metaray.algorithms import MAML, R2D2, Algorithm, ProtoMAML, ProtoNet
from metaray.config import replace
from metaray.data import UMTRA, CACTUs, ClassStore
from metaray.episodes.episode import EpisodeSpec
from metaray.experiment import Evaluation, Experiment, Optimizer, Precision
from metaray.models import Conv4, Model
from metaray.tuning.search import Search
from metaray.tuning.space import loguniform

STORE = ClassStore(path="omniglot.arrow", split="vinyals", rotations=True)
ALPHABETS = ClassStore(path="omniglot.arrow", split="lake")
FAST_CPU = Precision(dtype="bfloat16", channels_last=True)


def maml_5way_1shot() -> Experiment:
    """Second-order MAML: strided Conv4 and one inner step of 0.4 as in the paper, three steps when judged.

    Judged as in the paper with as many queries a class as shots. Under transductive batch norm that number matters:
    with 15 queries a class the same learner scores about 1.5 points lower.
    """
    return Experiment(
        name="omniglot-maml",
        source=STORE,
        episodes=EpisodeSpec(ways=5, shots=1, queries=5),
        model=Conv4(downsample="stride"),
        algorithm=MAML(inner_lr=0.4, inner_steps=1, batch_norm="transductive"),
        optimizer=Optimizer(outer_lr=1e-3, schedule="cosine"),
        meta_batch_size=8,
        num_steps=24000,
        evaluation=Evaluation(
            episodes=EpisodeSpec(ways=5, shots=1, queries=1), inner_steps=3, every=1000, val_episodes=500
        ),
        precision=FAST_CPU,
    )


def maml_inner_lr_search() -> Search:
    """Which inner learning rate suits 5-way 1-shot MAML: `metaray tune jobs/omniglot.py:maml_inner_lr_search`."""
    return Search(experiment=maml_5way_1shot(), space={"algorithm.inner_lr": loguniform(1e-3, 1)}, trials=16)


def maml_5way_5shot() -> Experiment:
    """Five shots a class."""
    return _maml("omniglot-maml-5shot", ways=5, shots=5, inner_lr=0.4)


def maml_20way_1shot() -> Experiment:
    """Twenty ways; the paper's inner learning rate for them is 0.1."""
    return _maml("omniglot-maml-20way", ways=20, shots=1, inner_lr=0.1)


def maml_20way_5shot() -> Experiment:
    """Twenty ways, five shots."""
    return _maml("omniglot-maml-20way-5shot", ways=20, shots=5, inner_lr=0.1)


def umtra_maml_5way_1shot() -> Experiment:
    """MAML that never saw a label of meta-train: classes are single drawings and their augmentations (UMTRA).

    Khodadadeh et al. (NeurIPS 2019) report 83.80 %, and 95.43 % at five shots; they train on one query a class, and
    augment by shifts and zeroed pixels alone. Turns and scalings do more than those, by meta-val after 600 steps.
    """
    source = UMTRA(source=STORE, max_shift=3, zero_share=0.1, max_turn_degrees=30, max_scaling=0.3)
    return replace(maml_5way_1shot(), name="omniglot-umtra", source=source, num_steps=6000)


def cactus_protonet_5way_1shot() -> Experiment:
    """ProtoNet that never saw a label of meta-train: classes are clusters of vectors of the drawings (CACTUs).

    Hsu, Levine and Finn (ICLR 2019) report 68.12 %, and 83.58 % at five shots, trained at 20 ways and one shot like
    this. `metaray data cluster VECTORS --split vinyals --out omniglot-partitions.arrow` makes the partitions;
    `jobs/benchmarks/unsupervised` vectors, too.
    """
    base = protonet_5way_1shot()
    source = CACTUs(source=replace(STORE, rotations=False), partitions="omniglot-partitions.arrow")
    return replace(
        base,
        name="omniglot-cactus",
        source=source,
        episodes=EpisodeSpec(ways=20, shots=1, queries=5),
        meta_batch_size=4,
        evaluation=replace(base.evaluation, episodes=EpisodeSpec(ways=5, shots=1, queries=5)),
    )


def protonet_5way_1shot() -> Experiment:
    """ProtoNet trained at 30 ways and judged at 5 (Snell et al., NeurIPS 2017, section 3.1, train at 60)."""
    return Experiment(
        name="omniglot-protonet",
        source=STORE,
        episodes=EpisodeSpec(ways=30, shots=1, queries=5),
        model=Conv4(),
        algorithm=ProtoNet(batch_norm="transductive"),
        optimizer=Optimizer(outer_lr=1e-3, schedule="cosine"),
        meta_batch_size=2,
        num_steps=6000,
        evaluation=Evaluation(episodes=EpisodeSpec(ways=5, shots=1, queries=15), every=500),
        precision=FAST_CPU,
    )


def protonet_5way_5shot() -> Experiment:
    """Five shots a class."""
    return _protonet("omniglot-protonet-5shot", ways=5, shots=5)


def protonet_20way_1shot() -> Experiment:
    """Judged at twenty ways."""
    return _protonet("omniglot-protonet-20way", ways=20, shots=1)


def protonet_20way_5shot() -> Experiment:
    """Judged at twenty ways, five shots."""
    return _protonet("omniglot-protonet-20way-5shot", ways=20, shots=5)


def protonet_mixed_alphabets() -> Experiment:
    """Lake's split of the alphabets, episodes over all of them: the counterpart of `protonet_within_alphabets`."""
    return _on_alphabets("omniglot-protonet-mixed", ALPHABETS)


def protonet_within_alphabets() -> Experiment:
    """Lake's task: 20 characters of one alphabet, one drawing of each, and one drawing of each to tell apart.

    Lake, Salakhutdinov and Tenenbaum (Science 2015; "The Omniglot challenge: a 3-year progress report", 2019,
    arXiv:1902.03477) judge within alphabets that training never saw. Alphabets are drawn uniformly among those with 20
    characters, as all have that are judged on. A learner of either recipe is judged the other way by
    `metaray evaluate MODEL --set source.within_groups=true` (or false). Departures: any number of random episodes in
    place of 20 fixed runs, and drawings of any people in place of chosen pairs.
    """
    return _on_alphabets("omniglot-protonet-within", replace(ALPHABETS, within_groups=True))


def protonet_meta_dataset() -> Experiment:
    """Meta-Dataset's episodes of Omniglot: an alphabet, 5 to 50 of its characters, unequal numbers of shots.

    Triantafillou et al. (ICLR 2020, arXiv:1903.03096, section 3.2). Departure: Lake's split of the alphabets into 25, 5
    and 20, where theirs takes the five smallest alphabets of the background for validation.
    """
    return replace(
        protonet_within_alphabets(),
        name="omniglot-protonet-meta-dataset",
        episodes=EpisodeSpec.meta_dataset(),
        evaluation=Evaluation(episodes=EpisodeSpec.meta_dataset(), every=500),
    )


def protonet_any_task() -> Experiment:
    """ProtoNet on tasks of 5 to 20 ways and 1 to 5 shots."""
    return _any_task("omniglot-protonet-any", ProtoNet(batch_norm="transductive"), Conv4())


def proto_maml_any_task() -> Experiment:
    """Proto-MAML on the same tasks: its head starts anew for the classes of each."""
    algorithm = ProtoMAML(inner_lr=0.05, inner_steps=1, batch_norm="transductive")
    return _any_task("omniglot-proto-maml-any", algorithm, Conv4(downsample="stride"))


def r2d2_any_task() -> Experiment:
    """R2D2 on the same tasks: its head is solved for the classes of each."""
    return _any_task("omniglot-r2d2-any", R2D2(batch_norm="transductive"), Conv4())


def _on_alphabets(name: str, source: ClassStore) -> Experiment:
    base = protonet_5way_1shot()
    return replace(
        base,
        name=name,
        source=source,
        episodes=EpisodeSpec(ways=20, shots=1, queries=5),
        evaluation=replace(base.evaluation, episodes=EpisodeSpec(ways=20, shots=1, queries=1)),
    )


def _any_task(name: str, algorithm: Algorithm, model: Model) -> Experiment:
    tasks = EpisodeSpec(ways=(5, 20), shots=(1, 5), queries=5)
    return replace(
        protonet_5way_1shot(),
        name=name,
        episodes=tasks,
        model=model,
        algorithm=algorithm,
        evaluation=Evaluation(episodes=tasks, every=500),
    )


def _maml(name: str, *, ways: int, shots: int, inner_lr: float) -> Experiment:
    base = maml_5way_1shot()
    judged = EpisodeSpec(ways=ways, shots=shots, queries=shots)
    return replace(
        base,
        name=name,
        episodes=EpisodeSpec(ways=ways, shots=shots, queries=5),
        algorithm=replace(base.algorithm, inner_lr=inner_lr),
        evaluation=replace(base.evaluation, episodes=judged),
    )


def _protonet(name: str, *, ways: int, shots: int) -> Experiment:
    base = protonet_5way_1shot()
    judged = EpisodeSpec(ways=ways, shots=shots, queries=15)
    return replace(
        base,
        name=name,
        episodes=EpisodeSpec(ways=30, shots=shots, queries=5),
        evaluation=replace(base.evaluation, episodes=judged),
    )
