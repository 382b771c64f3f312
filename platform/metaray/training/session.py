"""One rank's run, from the initial or saved state to the result: iterates the outer loop, judges, saves, reports."""

import time
from collections.abc import Callable, Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from metaray.algorithms.context import Tensors
from metaray.data.draws import Split
from metaray.data.source import SameData
from metaray.episodes.prefetch import Arrival
from metaray.errors import RunFailed, RunStopped
from metaray.experiment.experiment import Experiment
from metaray.learners.encoder import weights_behind
from metaray.learners.learner import Learner
from metaray.models.state import kept, marks_of, rebuilt
from metaray.records.checkpoint import copies, load_checkpoint
from metaray.records.environment import changes, environment
from metaray.records.estimate import estimate
from metaray.records.events import Event, EventKind, Listener, sparingly
from metaray.records.judged import JUDGED
from metaray.records.result import HALF_WIDTH, RESULT, Result, parameters_sha256
from metaray.records.run import LEARNER
from metaray.records.storage import Storage
from metaray.training.agreement import gathered, number_of, require_same_network, require_start
from metaray.training.conclusion import judged_end
from metaray.training.evaluation import Scores, evaluate, judge_of
from metaray.training.execution.strategy import Strategy
from metaray.training.milestones import Milestones
from metaray.training.outer_loop import Step, chunk_size_of, context_of, initial_state, outer_loop
from metaray.training.place import WHOLE, Extent
from metaray.training.profiling import profiled
from metaray.training.readiness import Ground, executed_by, made_ready
from metaray.training.reduction import Reducer
from metaray.training.rivals import Untrained, fresh, judged_untrained
from metaray.training.run_writer import RunWriter
from metaray.training.step_sums import StepSums


@dataclass(frozen=True)
class RankSetup:
    """What a rank needs besides the experiment.

    Attributes:
        storage: Storage of the run; every rank reads, only rank 0 writes.
        reducer: Reducer that joins the ranks.
        device: Device of this rank.
        listener: Listener to the events; only that of rank 0 is called.
        stream: Function that returns this rank's shares of the meta-batches from a step on.
        extent: How far to train; if any rank is asked to stop, all ranks do.
        notes: Messages about this rank's start, one sentence each.
        data_on: Place of the examples: the "host", or the "device", so that episodes hold row indices.
    """

    storage: Storage
    reducer: Reducer
    device: torch.device
    listener: Listener
    stream: Callable[[int], Iterator[Arrival]]
    extent: Extent = WHOLE
    notes: tuple[str, ...] = ()
    data_on: Literal["host", "device"] = "host"

    @property
    def is_chief(self) -> bool:
        """Whether this rank writes and speaks for all."""
        return self.reducer.rank == 0


class Session:
    """One rank's part in a run, from the newest checkpoint (or from the start) on.

    Args:
        experiment: The experiment to train.
        rank: What this rank needs besides the experiment.

    Raises:
        RunFailed: If the ranks do not see the same checkpoints, or do not build the same network.
    """

    def __init__(self, experiment: Experiment, rank: RankSetup) -> None:
        self.experiment, self.rank = experiment, rank
        self.data = SameData(experiment.source)
        self.started = time.perf_counter()
        self.state = initial_state(experiment, rank.device)
        self.initial = copies(self.state.meta)
        self.marks = marks_of(kept(self.state.network) | rebuilt(self.state.network))
        self.progress, self.best, self.damaged = load_checkpoint(rank.storage, self.state)
        self._agree_on_start()
        require_start(experiment, self.state.step)
        say = lambda kind, text: self._say(kind, text=text)  # noqa: E731
        compiling = lambda: rank.reducer.mark("compiling")  # noqa: E731
        self.ground = Ground(rank.storage, rank.device, rank.is_chief, self._gathered, say, compiling, rank.data_on)
        self.executed = executed_by(experiment, self.ground, self.state.step)
        self._tell_start()
        self.writer: RunWriter | None = None
        if rank.is_chief:
            alive = lambda: rank.reducer.mark("saving")  # noqa: E731
            self.writer = RunWriter(rank.storage, rank.listener, self.damaged, alive, self.progress.segments)
        self.window, self.clock = StepSums(self.progress.window), StepSums(self.progress.clock)
        self.seconds_before = self.progress.clock.get("seconds", 0.0)

    def run(self) -> None:
        """Train as far as the extent goes; at the end judge, and save the learner and the result.

        Raises:
            RunFailed: If the loss or gradient is not finite.
            RunStopped: If the extent said so; a checkpoint holds the state.
        """
        experiment, state = self.experiment, self.state
        rank, extent = self.rank, self.rank.extent
        strategy = self._made_ready()
        self._say("phase", text="training")
        stream = rank.stream(state.step)
        plan, asked = Milestones(experiment, extent.until), extent.should_stop
        loop = outer_loop(experiment, state, stream, rank.reducer, rank.device, asked, strategy, settles=plan.looks)
        note = lambda text: self._say("note", text=text)  # noqa: E731
        watched = profiled(loop, extent.profile, rank.storage, rank.device, rank.reducer, note)
        with closing(watched) if extent.profile else nullcontext(loop) as steps:
            for step in steps:
                self.window.count(step)
                self.clock.count(step)
                done = step.step + 1
                stop = plan.stops(done, asked=step.stop)
                if plan.records(done):
                    self._record_window(step)
                self._say("step", step._asdict(), step=done)
                assert state.step == done or not (stop or plan.looks(done)), (state.step, done)
                if plan.judges(done):
                    self._validate()
                if stop or plan.saves(done):
                    self._checkpoint(needed=stop or plan.is_last(done))
                if stop:
                    why = "by a signal" if step.stop else "as planned"
                    raise RunStopped(f"stopped {why} after step {step.step}; a checkpoint holds it")
        if self.progress.best_step is None:
            self._validate()
            self._checkpoint(needed=True)
        if extent.judge:
            self._conclude()

    def _made_ready(self) -> Strategy | None:
        """What computes meta-gradients; None where nothing is left to train."""
        if self.state.step == self.experiment.num_steps:
            return None
        strategy, self.executed = made_ready(self.experiment, self.executed, self.state, self.ground)
        return strategy

    def _record_window(self, step: Step) -> None:
        window, self.window = self.window, StepSums()
        self._record(
            {
                "train/loss": window.mean("loss"),
                f"train/{self.experiment.quality}": window.mean("score"),
                "train/gradient_norm": window.mean("gradient_norm"),
                "train/outer_lr": step.outer_lr,
                "train/wait_share": window.wait_share,
            },
            step.step + 1,
        )

    def _validate(self) -> None:
        scores = self._judge("meta-val", self.state.meta, self.state.step)
        score, quality = scores.estimate.mean, self.experiment.quality
        if self.experiment.source.task.score.surpasses(score, self.progress.best_score):
            self.progress = replace(self.progress, best_score=score, best_step=self.state.step)
            self.best = copies(self.state.meta)
        values = {"val/loss": float(scores.loss.mean()), f"val/{quality}": score}
        widths = {"val/loss": estimate(scores.loss).half_width, f"val/{quality}": scores.estimate.half_width}
        self._record(values | {f"{key}{HALF_WIDTH}": width for key, width in widths.items()})
        self._say("evaluation", values)

    def _judge(
        self,
        split: Split,
        meta: Tensors,
        step: int,
        *,
        baseline: str | None = None,
        inner_steps: int | None = None,
    ) -> Scores:
        plan, rank = judge_of(self.experiment, split), self.rank
        tell = sparingly(lambda done: self._say("judging", {"done": done, "episodes": plan.episodes}, text=split))
        if baseline is not None:
            options: dict[str, Any] = {"device": rank.device, "reducer": rank.reducer, "progress": tell}
            scores = judged_untrained(self._rival(baseline), self.experiment, split, **options)
        else:
            context = context_of(self.experiment, self.state.network, training=False, step=step)
            scores = evaluate(
                self.experiment.algorithm,
                meta,
                context if inner_steps is None else replace(context, inner_steps=inner_steps),
                plan,
                device=rank.device,
                chunk_size=chunk_size_of(self.experiment, rank.device),
                reducer=rank.reducer,
                progress=tell,
            )
        self.data.check()
        return scores

    def _rival(self, name: str) -> Untrained:
        model, source, seed = self.experiment.model, self.experiment.source, self.experiment.seed
        return Untrained.of(name, source, lambda: fresh(model, source, seed))

    def _checkpoint(self, *, needed: bool) -> None:
        """Rank 0 saves. Where the run cannot go on without, all ranks learn whether that worked."""
        problem = None
        if self.writer is not None:
            clock = {**self.clock.sums, "seconds": self.seconds}
            progress = replace(self.progress, window=self.window.sums, clock=clock, network=self.marks)
            try:
                self.writer.save(self.state, progress, self.best, needed=needed)
            except RunFailed as error:
                problem = error
        if needed:
            failed = self.rank.reducer.sum_(torch.tensor([float(problem is not None)], device=self.rank.device))
            if failed.item():
                raise problem or RunFailed("rank 0 could not write a checkpoint")

    @property
    def seconds(self) -> float:
        """Wall time of the run in seconds, over all its processes."""
        return self.seconds_before + time.perf_counter() - self.started

    def _conclude(self) -> None:
        source, best_step = self.experiment.source, self.progress.best_step
        assert best_step is not None
        self._say("phase", text="meta-test")
        note = lambda text: self._say("note", text=text)  # noqa: E731
        verdict = judged_end(self.experiment, self._judge, self.best, best_step, self.initial, say=note)
        result = Result(
            num_steps=self.state.step,
            best_step=best_step,
            parameters_sha256=parameters_sha256(self.state.meta | kept(self.state.network)),
            protocol=self.experiment.protocol,
            seconds=self.seconds,
            wait_share=self.clock.wait_share,
            episodes_per_s=self.clock.steps_per_s * self.experiment.meta_batch_size,
            quality=self.experiment.quality,
            compared=source.preprocessing.compared,
            device=self.rank.device.type,
            execution=self.executed.kind,
            **verdict.found(source),
        )
        self._record(result.metrics)
        if self.writer is not None:
            files = {JUDGED: verdict.judged(source).file(), RESULT: result.file()}
            self.writer.finish({LEARNER: self._learner().files()}, files, self.state.step)

    def _learner(self) -> Learner:
        experiment = self.experiment
        return Learner(
            algorithm=experiment.algorithm,
            model=experiment.model.held,
            meta=self.best,
            preprocessing=experiment.source.preprocessing,
            spec=experiment.eval_spec,
            inner_steps=experiment.evaluation.inner_steps,
            step=self.progress.best_step or 0,
            seed=experiment.seed,
            task=experiment.source.task,
            classes=experiment.task_shape.classes,
            provenance={
                "experiment": experiment.model_dump(mode="json"),
                "source_fingerprint": experiment.source.fingerprint,
                "protocol": experiment.protocol,
                "best_step": self.progress.best_step,
                "depends_on_batch": experiment.algorithm.heeds_batch(self.state.network),
            },
            state=kept(self.state.network),
            rebuilt={name: self.marks[name] for name in sorted(rebuilt(self.state.network).keys() & self.marks)},
            encoder=weights_behind(experiment.source.preprocessing),
        )

    def _record(self, values: dict[str, float], step: int | None = None) -> None:
        if self.writer is not None:
            self.writer.record(values, self.state.step if step is None else step)

    def _say(
        self, kind: EventKind, values: dict[str, float] | None = None, *, text: str = "", step: int | None = None
    ) -> None:
        if self.rank.is_chief:
            at = self.state.step if step is None else step
            self.rank.listener.on_event(Event(kind, at, values or {}, time.time(), text))

    def _tell_start(self) -> None:
        """Say where the run goes on from, and what is unusual about it."""
        step, now, then = self.state.step, environment(self.rank.device), self.progress.environment
        for note in self.rank.notes:
            self._say("note", text=note)
        for damaged, why in self.damaged.items():
            self._say("note", text=f"the checkpoint of step {damaged} is damaged ({why}) and is passed over")
        if step:
            self._say("note", text=f"going on from the checkpoint of step {step}")
        elif self.damaged:
            self._say("note", text="no checkpoint is whole: starting from step 0, which leads to the same parameters")
        if changed := ", ".join(changes(then, now)):
            what = "other software, settings or kind of processor than before"
            self._say("note", text=f"{what} ({changed}): bits may differ")

    def _agree_on_start(self) -> None:
        """All ranks go on from the same checkpoint: the newest that all could read.

        Raises:
            RunFailed: If some see no checkpoint where others see one.
        """
        steps = self._gathered(self.state.step)
        if len(set(steps)) > 1:
            if min(steps) > 0:
                loaded = load_checkpoint(self.rank.storage, self.state, at_most=min(steps))
                self.progress, self.best, self.damaged = loaded._replace(damaged=self.damaged | loaded.damaged)
                steps = self._gathered(self.state.step)
            if len(set(steps)) > 1:
                raise RunFailed(
                    f"the workers start from different checkpoints (steps {steps} by rank): they do not see the same "
                    f"storage {self.rank.storage.shown!r}; give --storage a folder or URI that all nodes share"
                )
        alike = len(set(self._gathered(number_of(environment(self.rank.device))))) == 1
        require_same_network(self.marks, self.progress.network, self._gathered, alike=alike)
        if not alike:
            self._say(
                "note",
                text="the workers differ in software, settings or kind of processor: bits may differ from other runs'",
            )

    def _gathered(self, value: int) -> list[int]:
        return gathered(value, self.rank.reducer, self.rank.device)
