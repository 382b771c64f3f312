"""Rows of tables with categories and missing cells: every algorithm learns from them, a task or a chunk at a time."""

import torch

from jobs.benchmarks.trials import SETTINGS
from metaray.algorithms import ALGORITHMS
from metaray.algorithms.algorithm import Algorithm, start
from metaray.algorithms.context import Context, Tensors
from metaray.algorithms.task_shape import TaskShape
from metaray.data.preprocessing import CategoryColumn, NumberColumn, TablePreprocessing
from metaray.data.preprocessing.table import CATEGORIES
from metaray.episodes.inputs import mapped
from metaray.episodes.tensors import Examples, TensorEpisode
from metaray.models import TableMLP
from metaray.models.comparison import Comparison
from metaray.tasks import Binary, Regression, TaskKind
from tests.conformance.bench import Trial, close, every

TABLE = TablePreprocessing(
    numbers=(NumberColumn(name="age", missing=True), NumberColumn(name="dose")),
    categories=(CategoryColumn(name="colour", categories=("blue", "red")),),
)
TASKS_OF: dict[str, TaskKind] = {"binary": Binary(), "regression": Regression(mean=3.0, std=2.0)}
ROWS = 6


def episode(task: TaskKind, seed: int) -> TensorEpisode:
    """A task, in float64."""
    sides = []
    for side in range(2):
        x = TABLE.normalize(torch.from_numpy(TABLE.probe(ROWS, 2 * seed + side)))
        assert isinstance(x, dict)
        x = {name: part if name == CATEGORIES else part.double() for name, part in x.items()}
        y = torch.arange(ROWS) // (ROWS // 2) if task.has_classes else x["numbers"][:, 1:] * 2 + seed
        sides.append(Examples(x, y))
    return TensorEpisode(sides[0], sides[1], torch.tensor(5 + seed), torch.zeros(1, dtype=torch.int64))


def prepared(trial: Trial) -> tuple[Algorithm, Tensors, Context]:
    task = TASKS_OF[trial.task]
    algorithm = ALGORITHMS[trial.kind].parse(
        {"batch_norm": trial.protocol, **SETTINGS.get(trial.kind, {})}, where=trial.kind
    )
    shape = TaskShape(TABLE.feature_shape, 1, task, 0, TABLE)
    network, meta = start(algorithm, TableMLP(hidden=(5,)), shape, seed=1)
    if not meta:  # the baseline
        network = Comparison(TABLE)
    network.double()
    meta = {name: tensor.double().requires_grad_() for name, tensor in meta.items()}
    return algorithm, meta, Context(network=network, ways=task.labels(1), training=True, task=task)


@every(tasks=TASKS_OF)
def test_tables_are_learned_from(trial: Trial) -> None:
    algorithm, meta, context = prepared(trial)
    task = episode(TASKS_OF[trial.task], 0)
    adapted = algorithm.adapt(meta, task.support, context)
    output = algorithm.predict(meta, adapted, task.query.x, context)
    assert output.shape == (ROWS, context.task.outputs(1)) and output.isfinite().all()
    if meta:
        gradient, _ = algorithm.meta_gradient(meta, task, context)
        assert all(one.isfinite().all() for one in gradient.values())
        embedded = [one for name, one in gradient.items() if "embeddings" in name]
        assert embedded and any(one.any() for one in embedded)


@every(trained=True, tasks=TASKS_OF)
def test_chunks_of_tables_are_mapped_over(trial: Trial) -> None:
    algorithm, meta, context = prepared(trial)
    tasks = [episode(TASKS_OF[trial.task], seed) for seed in (0, 1)]
    sides = []
    for one, other in zip(tasks[0][:2], tasks[1][:2], strict=True):
        x = {name: torch.stack([part, other.x[name]]) for name, part in one.x.items()}
        sides.append(Examples(x, torch.stack([one.y, other.y])))
    ids = [torch.stack([getattr(task, name) for task in tasks]) for name in ("seed", "classes")]
    alone = [algorithm.meta_gradient(meta, task, context) for task in tasks]
    together = algorithm.meta_gradient(meta, TensorEpisode(sides[0], sides[1], *ids), context.with_batched(True))
    close(together.outcome.loss, torch.cat([one.outcome.loss for one in alone]), tolerance=1e-6)
    for name in meta:
        close(together.gradient[name], alone[0].gradient[name] + alone[1].gradient[name], tolerance=1e-6)


def test_the_probe_has_all_that_rows_may_have() -> None:
    x = mapped(torch.from_numpy, TABLE.probe(ROWS))
    assert x[:, 2].unique().tolist() == [0, 1] and x[:, 3].unique().tolist() == [0, 1, 2]
