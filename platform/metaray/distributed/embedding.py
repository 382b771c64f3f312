"""An encoder over a store on a Ray cluster, by Ray Data: batches go to actors, each with an encoder of its own."""

import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import ray
from numpy.typing import NDArray

from metaray import tracebacks
from metaray.distributed.cluster import connect, uses_gpu
from metaray.distributed.samplers import enter
from metaray.errors import InputError, RunFailed
from metaray.models.encoders.embedding import Batches, Made, Task
from metaray.training.placement import Placement

AT_ONCE = 4
"""Batches that an actor is given together: what a node that is taken away loses."""
NUMBER, ROWS, VECTORS, PROBLEM = "number", "rows", "vectors", "problem"


class Embedding:
    """What an actor does; a plain class, so that it is tested without Ray.

    It opens the store and the encoder when it is first asked, so that what goes wrong then is told.

    Args:
        task: What to make.
        folder: The driver's working directory.
    """

    def __init__(self, task: tuple[Any, ...], folder: str = ".") -> None:
        self._task, self._folder = Task(*task), folder
        self._batches: Batches | None = None

    def __call__(self, block: dict[str, NDArray[Any]]) -> dict[str, Any]:
        """The vectors of the batches whose numbers are in a block; their bytes, since the last batch is shorter."""
        numbers = block[NUMBER].tolist()
        try:
            if self._batches is None:
                enter(self._folder)
                self._batches = Batches(self._task)
            made = [self._batches.vectors(number) for number in numbers]
        except Exception as error:  # noqa: BLE001 - told to the driver, since Ray Data would try again and again
            told = str(error) if isinstance(error, InputError) else f"!{tracebacks.summary(error)}"
            count = len(numbers)
            return {NUMBER: numbers, ROWS: [0] * count, VECTORS: [b""] * count, PROBLEM: [told] * count}
        return {
            NUMBER: numbers,
            ROWS: [len(one) for one in made],
            VECTORS: [one.tobytes() for one in made],
            PROBLEM: [""] * len(numbers),
        }


def embedded_on_ray(task: Task, numbers: list[int], placement: Placement) -> Iterator[Made]:
    """Batches as they come back, in any order.

    Args:
        task: What to make; its device is left to the placement.
        numbers: Numbers of the batches.
        placement: How many actors, and what each may use.

    Yields:
        Each batch once. An actor that is lost is replaced, and its batches are made again.

    Raises:
        InputError: If the cluster cannot be reached or has no room, or what an actor finds wrong.
        RunFailed: Whatever else an actor raises.
    """
    connect(placement)
    _be_quiet()
    items = [{NUMBER: number} for number in numbers]
    given = ray.data.from_items(items, override_num_blocks=-(-len(numbers) // AT_ONCE))
    made = given.map_batches(
        Embedding,
        fn_constructor_args=(tuple(task), str(Path.cwd())),
        batch_size=None,
        batch_format="numpy",
        compute=ray.data.ActorPoolStrategy(size=placement.workers.most),
        num_cpus=placement.cpus_per_worker,
        num_gpus=int(uses_gpu(placement)),
    )
    for row in made.iter_rows():
        yield int(row[NUMBER]), _vectors(row)


def _vectors(row: dict[str, Any]) -> NDArray[np.float32]:
    problem = str(row[PROBLEM])
    if problem.startswith("!"):
        raise RunFailed(f"an encoder on the cluster: {problem[1:]}")
    if problem:
        raise InputError(problem)
    found: NDArray[np.float32] = np.frombuffer(row[VECTORS], dtype=np.float32).reshape(int(row[ROWS]), -1)
    return found


def _be_quiet() -> None:
    """The display is for our own progress."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of what Ray Data itself sets
        context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    if not logging.getLogger("metaray").isEnabledFor(logging.DEBUG):
        logging.getLogger("ray.data").setLevel(logging.ERROR)
