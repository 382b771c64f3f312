"""Training for a minute, as a user would: sampler beside it, and judged at the end."""

import time
from collections.abc import Iterator
from functools import partial

from jobs.benchmarks.gpu.record import Values
from jobs.benchmarks.gpu.section import Case, Section, Setting
from jobs.omniglot import maml_5way_1shot
from metaray.config import replace
from metaray.data import ClassStore, Glyphs
from metaray.data.draws import Split
from metaray.episodes.episode import MetaBatch
from metaray.episodes.prefetch import threaded_stream
from metaray.episodes.resident import bring_home
from metaray.episodes.sampler import sample_meta_batch, share_of
from metaray.experiment.experiment import Experiment, Precision
from metaray.records.estimate import Estimate
from metaray.records.result import parameters_sha256
from metaray.records.train_state import TrainState
from metaray.training.device import set_execution
from metaray.training.evaluation import evaluate, judge_of
from metaray.training.outer_loop import context_of, initial_state, outer_loop
from metaray.training.readiness import strategy_of
from metaray.training.reduction import LocalReducer
from metaray.training.step_sums import StepSums

EPISODES, JUDGED = 32, 600
WARM_UP_STEPS, MOST_STEPS = 10, 10**6

ABOUT = f"""MAML, 5-way 1-shot, by the recipe `jobs/omniglot.py:maml_5way_1shot` but for {EPISODES} episodes a step in \
one chunk; a thread of the same process samples, rows of the store where that lives on the device. A few steps tell \
how many fit into the time, to which the learning rate's cosine is stretched; then it begins again. Accuracy over \
{JUDGED} episodes of meta-test, one query a class, \
three inner steps, transductive batch norm, after the last step: nothing is chosen. Waiting is the share of the time \
in which the trainer waited for episodes."""


def cases(setting: Setting) -> Iterator[Case]:
    """In float32, all of the time."""
    yield Case("MAML, strided Conv4, float32", partial(trained, setting))


def experiment_of(setting: Setting) -> Experiment:
    """The recipe; on the embedded glyphs where there is no Omniglot."""
    recipe = maml_5way_1shot()
    given = setting.omniglot
    source = Glyphs() if given is None else ClassStore(path=str(given), split="vinyals", rotations=True)
    return replace(
        recipe,
        source=source,
        algorithm=replace(recipe.algorithm, batch_norm="transductive"),
        model=replace(recipe.model, channels=8) if setting.small else recipe.model,
        meta_batch_size=4 if setting.small else EPISODES,
        chunk_size=4 if setting.small else EPISODES,
        precision=Precision(),
        evaluation=replace(recipe.evaluation, test_episodes=20 if setting.small else JUDGED),
        num_steps=MOST_STEPS,
    )


def trained(setting: Setting) -> Values:
    """How fast it was and how good it became."""
    experiment = experiment_of(setting)
    set_execution(experiment, setting.device)
    _, first = train(experiment, setting, steps=WARM_UP_STEPS)
    num_steps = WARM_UP_STEPS + int(setting.train_s * first.steps_per_s)
    experiment = replace(experiment, num_steps=num_steps)
    started = time.perf_counter()
    state, sums = train(experiment, setting, until_s=started + 1.5 * setting.train_s)
    setting.synchronize()
    seconds = time.perf_counter() - started
    found = judged(experiment, state, setting)
    return {
        "data": "Omniglot" if setting.omniglot else "glyphs (no Omniglot store was given)",
        "accuracy %": 100 * found.mean,
        "+-": 100 * found.half_width,
        "steps": state.step,
        "s": seconds,
        "episodes/s": state.step * experiment.meta_batch_size / seconds,
        "waiting %": 100 * sums.wait_share,
        "sha256": parameters_sha256(state.meta)[:12],
    }


def train(
    experiment: Experiment, setting: Setting, *, steps: int | None = None, until_s: float = float("inf")
) -> tuple[TrainState, StepSums]:
    """Train from scratch.

    Args:
        experiment: of what.
        setting: on which device.
        steps: how many; None goes to the experiment's end. The sums leaves out the first half of so few.
        until_s: of `time.perf_counter`, when it ends in any case.
    """
    size = experiment.meta_batch_size

    rows = bring_home(experiment.source, setting.device).on_device

    def sample(step: int) -> MetaBatch:
        source, episodes = experiment.source, experiment.episodes
        return sample_meta_batch(source, episodes, "meta-train", experiment.seed, share_of(step, size), rows=rows)

    stream = threaded_stream(sample, start=0, stop=steps or experiment.num_steps)
    state, sums = initial_state(experiment, setting.device), StepSums()
    strategy = strategy_of(experiment, setting.device)
    for step in outer_loop(experiment, state, stream, LocalReducer(), setting.device, strategy=strategy):
        if steps is None or step.step >= steps // 2:
            sums.count(step)
        if time.perf_counter() > until_s:
            break
    return state, sums


def judged(experiment: Experiment, state: TrainState, setting: Setting) -> Estimate:
    """Accuracy on meta-test."""
    split: Split = "meta-test"
    context = context_of(experiment, state.network, training=False, step=state.step)
    judge = judge_of(experiment, split)
    size = experiment.meta_batch_size
    algorithm, device = experiment.algorithm, setting.device
    return evaluate(algorithm, state.meta, context, judge, device=device, chunk_size=size).estimate


SECTION = Section("training", ABOUT, cases)
