"""Judging on Ray: actors that score pieces of the episodes, which together are what one process scores."""

import tempfile
from collections import deque
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import ray
import torch
from numpy.typing import NDArray
from ray.exceptions import RayActorError, RayTaskError

from metaray import tracebacks
from metaray.data.draws import Split
from metaray.distributed.cluster import connect, ray_logs, uses_gpu
from metaray.distributed.samplers import enter, require_same_data
from metaray.errors import InputError, RunFailed
from metaray.experiment.experiment import Experiment
from metaray.learners.learner import Learner
from metaray.learners.loading import load_learner
from metaray.training.device import choose_device, set_execution
from metaray.training.evaluation import FACTS, Scores, evaluate_learner, judge_of
from metaray.training.outer_loop import chunk_size_of
from metaray.training.placement import Placement
from metaray.training.rivals import Untrained, judged_untrained, untrained_of

PIECES_A_WORKER = 8
"""So many steps does progress take at least, and none waits long for the slowest."""
AHEAD = 2
"""Pieces that a worker has been given and not returned."""
RETRIES = 3


class Judging:
    """What an actor does; a plain class, so that it is tested without Ray.

    It opens its source and loads learners when it is first asked, so that what goes wrong then is told.

    Args:
        experiment: Its JSON.
        trust: Packages besides metaray whose code these may name.
        fingerprint: Fingerprint of the driver's source.
        folder: The driver's working directory.
        device: "cpu" or "cuda".
        verify: Whether the data are compared with their fingerprint, also where that was done before.
    """

    def __init__(
        self,
        experiment: str,
        trust: Sequence[str] = (),
        fingerprint: str = "",
        folder: str = ".",
        device: str = "cpu",
        verify: bool = False,
    ) -> None:
        self._text, self._trust, self._learners = experiment, trust, dict[int, Learner]()
        self._fingerprint, self._folder, self._device, self._verify = fingerprint, folder, device, verify
        self._rivals = dict[tuple[int, str], Untrained]()

    @cached_property
    def _opened(self) -> tuple[Experiment, torch.device]:
        enter(self._folder)
        experiment = Experiment.from_json(self._text)
        require_same_data(experiment.source, self._fingerprint, verify=self._verify)
        device = choose_device(self._device)
        set_execution(experiment, device)
        return experiment, device

    def _learner(self, which: int, files: dict[str, bytes]) -> Learner:
        if which not in self._learners:
            with tempfile.TemporaryDirectory() as scratch:
                for name, data in files.items():
                    Path(scratch, name).write_bytes(data)
                self._learners[which] = load_learner(Path(scratch), trust=self._trust)
        return self._learners[which]

    def judge(
        self,
        which: int,
        files: dict[str, bytes],
        split: Split,
        start: int,
        stop: int,
        inner_steps: int | None = None,
        baseline: str | None = None,
    ) -> NDArray[np.float64]:
        """`Scores.table` of episodes `start .. stop-1`.

        Args:
            which: Position of the learner that is judged, from 0.
            files: Files of that learner, by name.
            split: "meta-val" or "meta-test".
            start: The first episode; a multiple of the chunk size.
            stop: One past the last.
            inner_steps: Instead of the learner's own number.
            baseline: The one of that name in its place.

        Raises:
            InputError: If the data are others here than the driver's, or the learner cannot be loaded.
            RunFailed: Whatever else is raised, with its traceback.
        """
        try:
            experiment, device = self._opened
            learner = self._learner(which, files)
            options: dict[str, Any] = {"device": device, "episodes": range(start, stop)}
            if baseline is None:
                return evaluate_learner(learner, experiment, split, inner_steps=inner_steps, **options).table
            if (which, baseline) not in self._rivals:
                self._rivals[which, baseline] = untrained_of(baseline, learner, experiment)
            return judged_untrained(self._rivals[which, baseline], experiment, split, **options).table
        except InputError:
            raise
        except Exception as error:
            what = f"judging episodes {start} to {stop - 1}: {tracebacks.summary(error)}"
            raise RunFailed(what, told=tracebacks.told(error), tracebacks=tracebacks.whole(error)) from error


def pieces(episodes: int, workers: int, chunk_size: int) -> list[range]:
    """Cut so many episodes into contiguous runs of whole chunks, several a worker."""
    chunks = -(-episodes // chunk_size)
    size = chunk_size * max(1, -(-chunks // (workers * PIECES_A_WORKER)))
    return [range(start, min(start + size, episodes)) for start in range(0, episodes, size)]


class Judges:
    """Actors on the cluster that a placement names, which judge learners on the episodes of an experiment.

    Each episode's score is a function of the learner and the episode alone, so it does not matter who judges it.
    A context manager: the actors end with the block.

    Args:
        learners: Learners to be judged.
        experiment: Experiment that says on what they are judged, and how.
        placement: The number of workers, and what they may use.
        trust: Packages besides metaray whose code learners may name, and those that these were loaded with.

    Raises:
        InputError: If the cluster cannot be reached, or has no room for the workers.
    """

    def __init__(
        self, learners: Sequence[Learner], experiment: Experiment, placement: Placement, trust: Sequence[str]
    ) -> None:
        connect(placement)
        use_gpu = uses_gpu(placement)
        device = torch.device("cuda" if use_gpu else "cpu")
        self._experiment, self._chunk_size = experiment, chunk_size_of(experiment, device)
        actor = ray.remote(
            num_cpus=placement.cpus_per_worker,
            num_gpus=int(use_gpu),
            max_restarts=RETRIES,
            max_task_retries=RETRIES,
            scheduling_strategy="SPREAD" if placement.spread else "DEFAULT",
        )(Judging)
        self._files = [ray.put(learner.files()) for learner in learners]
        trusted = sorted({*trust, *(package for learner in learners for package in learner.own_code)})
        arguments = experiment.source.fingerprint, str(Path.cwd()), device.type, placement.verify
        self._actors = [actor.remote(experiment.to_json(), trusted, *arguments) for _ in range(placement.workers.most)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for actor in self._actors:
            ray.kill(actor)

    def __call__(
        self,
        which: int,
        split: Split,
        *,
        inner_steps: int | None = None,
        baseline: str | None = None,
        progress: Callable[[int], None] = lambda done: None,
    ) -> Scores:
        """Scores of all episodes, in order: those of one process, to the last bit where the processors are of one kind.

        Args:
            which: Position of the learner that is judged, from 0.
            split: "meta-val" or "meta-test".
            inner_steps: Instead of the learner's own number.
            baseline: The one of that name in its place.
            progress: Function that is told the number of episodes judged so far.

        Raises:
            InputError: If the data are others on some node, or the learner cannot be loaded there.
            RunFailed: If judging raises something else, or the actors die again and again.
        """
        episodes = judge_of(self._experiment, split).episodes
        left = deque(pieces(episodes, len(self._actors), self._chunk_size))
        table = np.zeros((FACTS + len(self._experiment.source.task.further), episodes))
        given: dict[Any, tuple[Any, range]] = {}

        def give(actor: Any) -> None:
            if left:
                piece = left.popleft()
                what = which, self._files[which], split, piece.start, piece.stop, inner_steps, baseline
                given[actor.judge.remote(*what)] = actor, piece

        for actor in self._actors * AHEAD:
            give(actor)
        done = 0
        while given:
            (ready, *_), _ = ray.wait(list(given), num_returns=1)
            actor, piece = given.pop(ready)
            table[:, piece.start : piece.stop] = _received(ready)
            give(actor)
            done += len(piece)
            progress(done)
        return Scores.of(table)


def _received(ref: Any) -> NDArray[np.float64]:
    try:
        found: NDArray[np.float64] = ray.get(ref)
    except RayTaskError as error:
        cause = error.cause
        if isinstance(cause, InputError | RunFailed):
            raise cause from None
        raise
    except RayActorError as error:
        why = str(error).strip().partition("\n")[0]
        raise RunFailed(f"a process that judged is gone: {why}; Ray's own logs: {ray_logs()}") from error
    return found
