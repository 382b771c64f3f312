"""One rank's run, from the initial or saved state to the result: iterates the outer loop, judges, saves, reports."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch

from metaray.algorithms.algorithm import Algorithm
from metaray.algorithms.context import Tensors
from metaray.algorithms.learner import Learner
from metaray.algorithms.nearest_neighbor import NearestNeighbor
from metaray.data.draws import Split
from metaray.episodes.prefetch import Arrival
from metaray.errors import RunFailed, RunStopped
from metaray.manifest import Damaged
from metaray.training.checkpoint import Progress, keep_checkpoints, load_checkpoint, save_checkpoint, saved_steps
from metaray.training.evaluation import Scores, evaluate, judge_of
from metaray.training.events import Event, Kind, Listener
from metaray.training.experiment import Experiment
from metaray.training.journal import Journal, Metric
from metaray.training.outer_loop import Step, chunk_size_of, context_of, initial_state, outer_loop
from metaray.training.reduction import Reducer
from metaray.training.result import RESULT, Result, parameters_sha256
from metaray.training.storage import Storage

LEARNER = "learner"
POINTS_A_CURVE = 500


@dataclass(frozen=True)
class Rank:
    """What a rank needs besides the experiment.

    Attributes:
        storage: of the run; every rank reads, only rank 0 writes.
        reducer: joins the ranks.
        device: of this rank.
        listener: hears the events; only rank 0's is called.
        stream: gives this rank's meta-batch shares from a step on.
        should_stop: asked at each step; True on any rank ends the run after a checkpoint.
    """

    storage: Storage
    reducer: Reducer
    device: torch.device
    listener: Listener
    stream: Callable[[int], Iterator[Arrival]]
    should_stop: Callable[[], bool] = lambda: False

    @property
    def is_chief(self) -> bool:
        """Whether this rank writes and speaks for all."""
        return self.reducer.rank == 0


def run_session(experiment: Experiment, rank: Rank) -> Result:
    """Train from the newest checkpoint (or from scratch) to the end, judge, and save the learner and the result.

    Raises:
        RunFailed: if the loss or gradient is not finite.
        RunStopped: if `should_stop` said so; a checkpoint holds the state.
    """
    session = _Session(experiment, rank)
    session.train()
    return session.conclude()


class _Session:
    def __init__(self, experiment: Experiment, rank: Rank) -> None:
        self.experiment, self.rank = experiment, rank
        self.started = time.perf_counter()
        self.state = initial_state(experiment, rank.device)
        self.progress = load_checkpoint(rank.storage, self.state) or Progress()
        self._require_same_start()
        self.best = self._best_so_far()
        self.journal = Journal(rank.storage, self.state.step)
        self.clock = _Clock()

    def train(self) -> None:
        experiment, state = self.experiment, self.state
        self.say("phase", text="training")
        window: list[Step] = []
        stream = self.rank.stream(state.step)
        rank = self.rank
        for step in outer_loop(experiment, state, stream, rank.reducer, rank.device, rank.should_stop):
            self.clock.count(step)
            window.append(step)
            last = state.step == experiment.num_steps
            stop = step.stop and not last
            judged = last or _due(state.step, experiment.evaluation.every)
            saved = judged or stop or _due(state.step, experiment.checkpoint.every)
            # A window ends at each checkpoint too, so that a resumed run measures what an undisturbed one does.
            if saved or _due(state.step, max(1, experiment.num_steps // POINTS_A_CURVE)):
                self.record(_means(window))
                window = []
            self.say("step", step._asdict())
            if judged:
                self.validate()
            if saved:
                self.checkpoint()
            if stop:
                raise RunStopped(f"stopped by a signal after step {step.step}; a checkpoint holds it")
        if self.progress.best_step is None:
            self.validate()
            self.checkpoint()

    def validate(self) -> None:
        scores = self.judge("meta-val", self.state.meta, self.state.step)
        accuracy = scores.accuracy.mean
        if self.progress.best_score is None or accuracy > self.progress.best_score:
            self.progress = replace(self.progress, best_score=accuracy, best_step=self.state.step)
            self.best = _copies(self.state.meta)
        values = {"val/loss": float(scores.loss.mean()), "val/accuracy": accuracy}
        self.record(values)
        self.say("evaluation", values)

    def judge(
        self,
        split: Split,
        meta: Tensors,
        step: int,
        *,
        algorithm: Algorithm | None = None,
        inner_steps: int | None = None,
    ) -> Scores:
        context = context_of(self.experiment, self.state.network, training=False, step=step)
        return evaluate(
            algorithm or self.experiment.algorithm,
            meta,
            context if inner_steps is None else replace(context, inner_steps=inner_steps),
            judge_of(self.experiment, split),
            device=self.rank.device,
            chunk_size=chunk_size_of(self.experiment, self.rank.device),
            reducer=self.rank.reducer,
        )

    def checkpoint(self) -> None:
        if not self.rank.is_chief:
            return
        step = self.state.step
        self.journal.commit(step)
        save_checkpoint(self.rank.storage, self.state, self.progress)
        # The one before stays as well: should the newest turn out damaged, that is where to go back to.
        earlier = [saved for saved in saved_steps(self.rank.storage) if saved < step]
        best = [] if self.progress.best_step is None else [self.progress.best_step]
        keep_checkpoints(self.rank.storage, [step, *earlier[-1:], *best])

    def conclude(self) -> Result:
        experiment, best_step = self.experiment, self.progress.best_step
        assert best_step is not None
        self.say("phase", text="meta-test")
        meta_val = self.judge("meta-val", self.best, best_step)
        meta_test = self.judge("meta-test", self.best, best_step)
        unadapted = None
        if experiment.algorithm.gradient_steps:
            self.say("note", text="judging: meta-test before adaptation")
            unadapted = self.judge("meta-test", self.best, best_step, inner_steps=0)
        self.say("note", text="judging: meta-test before training, and by nearest neighbour")
        untrained = self.judge("meta-test", initial_state(experiment, self.rank.device).meta, 0)
        pixels = self.judge("meta-test", {}, 0, algorithm=NearestNeighbor())
        result = Result(
            num_steps=self.state.step,
            best_step=best_step,
            meta_val=meta_val.accuracy,
            meta_val_scores=tuple(meta_val.score.tolist()),
            meta_test=meta_test.accuracy,
            before_adaptation=unadapted.accuracy if unadapted else None,
            before_training=untrained.accuracy,
            nearest_neighbor=pixels.accuracy,
            parameters_sha256=parameters_sha256(self.state.meta),
            protocol=experiment.protocol,
            seconds=time.perf_counter() - self.started,
            wait_share=self.clock.wait_share,
            episodes_per_s=self.clock.steps_per_s * experiment.meta_batch_size,
        )
        if self.rank.is_chief:
            self.rank.storage.write_folder(LEARNER, self.learner().files())
            self.rank.storage.write(RESULT, result.to_json().encode())
        return result

    def learner(self) -> Learner:
        experiment = self.experiment
        return Learner(
            algorithm=experiment.algorithm,
            model=experiment.model,
            meta=self.best,
            preprocessing=experiment.source.preprocessing,
            spec=experiment.eval_spec,
            inner_steps=experiment.evaluation.inner_steps,
            step=self.progress.best_step or 0,
            seed=experiment.seed,
            provenance={
                "experiment": experiment.model_dump(mode="json"),
                "source_fingerprint": experiment.source.fingerprint,
                "protocol": experiment.protocol,
                "best_step": self.progress.best_step,
            },
        )

    def record(self, values: dict[str, float]) -> None:
        now_ms = time.time_ns() // 1_000_000
        self.journal.append([Metric(key, value, self.state.step, now_ms) for key, value in values.items()])
        self.say("metrics", values, now_ms=now_ms)

    def say(
        self, kind: Kind, values: dict[str, float] | None = None, *, text: str = "", now_ms: int | None = None
    ) -> None:
        if self.rank.is_chief:
            now_s = time.time() if now_ms is None else now_ms / 1000
            self.rank.listener.on_event(Event(kind, self.state.step, values or {}, now_s, text))

    def _require_same_start(self) -> None:
        """All ranks must have loaded the same checkpoint, or all-reduce would mix different runs."""
        reducer = self.rank.reducer
        table = torch.zeros(reducer.world_size, dtype=torch.float64, device=self.rank.device)
        table[reducer.rank] = self.state.step
        steps = [int(step) for step in reducer.sum_(table).tolist()]
        if len(set(steps)) > 1:
            raise RunFailed(
                f"the workers start from different checkpoints (steps {steps} by rank): they do not see the same "
                f"storage {self.rank.storage.root!r}; give --storage a folder or URI that all nodes share"
            )

    def _best_so_far(self) -> Tensors:
        if self.progress.best_step is None or self.progress.best_step == self.state.step:
            return _copies(self.state.meta)
        other = initial_state(self.experiment, self.rank.device)
        try:
            load_checkpoint(self.rank.storage, other, self.progress.best_step)
        except Damaged as error:
            raise RunFailed(
                f"the checkpoint of step {self.progress.best_step}, the best so far by meta-val, is damaged in "
                f"{self.rank.storage.root}: {error}. Restore it, or start again under another --run name"
            ) from error
        return _copies(other.meta)


class _Clock:
    """Adds up the time of steps, evaluations and checkpoints aside."""

    def __init__(self) -> None:
        self.steps, self.duration_s, self.wait_s = 0, 0.0, 0.0

    def count(self, step: Step) -> None:
        self.steps += 1
        self.duration_s += step.duration_s
        self.wait_s += step.wait_s

    @property
    def wait_share(self) -> float:
        return self.wait_s / self.duration_s if self.duration_s else 0.0

    @property
    def steps_per_s(self) -> float:
        return self.steps / self.duration_s if self.duration_s else 0.0


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _copies(meta: Tensors) -> Tensors:
    return {name: tensor.detach().clone() for name, tensor in meta.items()}


def _means(window: list[Step]) -> dict[str, float]:
    count = len(window)
    return {
        "train/loss": sum(step.loss for step in window) / count,
        "train/accuracy": sum(step.score for step in window) / count,
        "train/gradient_norm": sum(step.gradient_norm for step in window) / count,
        "train/outer_lr": window[-1].outer_lr,
        "train/wait_share": sum(step.wait_s for step in window) / sum(step.duration_s for step in window),
    }
