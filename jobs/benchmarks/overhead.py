"""What the platform costs: its outer loop against a plain PyTorch loop on the same episodes, in the same process.

    python -m jobs.benchmarks.overhead [--recipe jobs/glyphs.py:demo] [--steps 20] [--repeats 5] [--device auto]
                                       [--chunk-size 1]

Needs neither Ray nor MLflow. The plain loop is what one would write by hand: the same network, `autograd.grad` with
`create_graph`, and `torch.optim`. Both run alternately; the ratio of the medians is the result. With a larger
--chunk-size the ratio is no longer the overhead but the gain from mapping over several episodes at once, as a GPU does
by default.
"""

import argparse
import json
import statistics
import time
from collections.abc import Iterable, Iterator

import torch

from jobs.benchmarks.plain import plain_steps
from metaray.config import replace
from metaray.episodes.prefetch import Arrival
from metaray.episodes.sampler import sample_meta_batch, share_of
from metaray.experiment.experiment import Experiment
from metaray.experiment.recipes import load_recipe
from metaray.training.device import choose_device, set_execution
from metaray.training.outer_loop import initial_state, outer_loop
from metaray.training.readiness import strategy_of
from metaray.training.reduction import LocalReducer


def arrivals(experiment: Experiment, steps: int) -> list[Arrival]:
    """The meta-batches of the first steps, sampled ahead so that only computing is timed."""
    return [
        Arrival(
            step,
            sample_meta_batch(
                experiment.source,
                experiment.episodes,
                "meta-train",
                experiment.seed,
                share_of(step, experiment.meta_batch_size, 0, 1),
            ),
            0.0,
        )
        for step in range(steps)
    ]


def platform_steps(experiment: Experiment, given: Iterable[Arrival], device: torch.device) -> Iterator[float]:
    """Losses of metaray's outer loop."""
    state = initial_state(experiment, device)
    strategy = strategy_of(experiment, device)
    for step in outer_loop(experiment, state, given, LocalReducer(), device, strategy=strategy):
        yield step.loss


def main() -> None:
    """Run both alternately and print the ratio of their median step times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", default="jobs/glyphs.py:demo")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--chunk-size", type=int, default=1)
    options = parser.parse_args()
    recipe = load_recipe(options.recipe)
    # As the plain loop: queries normalised together.
    algorithm = replace(recipe.algorithm, batch_norm="transductive")
    experiment = replace(recipe, algorithm=algorithm, chunk_size=options.chunk_size)
    device = choose_device(options.device)
    set_execution(experiment, device)
    given = arrivals(experiment, options.steps)
    times: dict[str, list[float]] = {"platform": [], "plain": []}
    losses: dict[str, list[float]] = {}
    for repeat in range(options.repeats + 1):
        for name, loop in (("platform", platform_steps), ("plain", plain_steps)):
            started = time.perf_counter()
            losses[name] = list(loop(experiment, given, device))
            if repeat:  # the first round warms up
                times[name].append((time.perf_counter() - started) / options.steps)
    medians = {name: statistics.median(found) for name, found in times.items()}
    worst = max(abs(a - b) for a, b in zip(losses["platform"], losses["plain"], strict=True))
    result = {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else torch.backends.cpu.get_cpu_capability(),
        "recipe": options.recipe,
        "chunk_size": options.chunk_size,
        "steps": options.steps,
        "repeats": options.repeats,
        "platform_ms_a_step": round(1000 * medians["platform"], 2),
        "plain_ms_a_step": round(1000 * medians["plain"], 2),
        "ratio": round(medians["platform"] / medians["plain"], 3),
        "largest_difference_of_losses": worst,
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
