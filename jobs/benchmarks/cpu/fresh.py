"""What is measured in a process of its own: peak memory, and what starts Ray.

    python -m jobs.benchmarks.cpu.fresh memory CASE WHO STEPS FOLDER [--tiny]
    python -m jobs.benchmarks.cpu.fresh stream ACTORS CLASSES SIDE STEPS

Prints JSON on the last line.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[3]
TIMEOUT_S = 400.0


def json_of(module: str, words: list[str], timeout_s: float = TIMEOUT_S) -> dict[str, Any]:
    """What a module prints on its last line.

    Raises:
        RuntimeError: if it fails, with the end of what it said, or takes too long.
    """
    command = [sys.executable, "-m", module, *words]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{module} {' '.join(words)} failed: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def memory(case_name: str, who: str, steps: int, folder: Path, *, tiny: bool) -> dict[str, float]:
    """Bytes before the first meta-step, at most, and the processor time of a step.

    Args:
        case_name: title of one of CASES.
        who: one of `memories.ours`, or "by hand".
        steps: to take.
        folder: that has the data.
        tiny: the size of networks and images.
    """
    import torch

    from jobs.benchmarks.cpu.cases import CASES, FULL, TINY, experiment_of
    from jobs.benchmarks.cpu.contenders import BY_HAND, by_hand, ours
    from jobs.benchmarks.cpu.memories import who_are
    from jobs.benchmarks.overhead import arrivals
    from jobs.benchmarks.peers.learner import Outcome, import_late_parts
    from jobs.benchmarks.peers.serve import memory as held
    from jobs.benchmarks.trials import CPU
    from metaray.training.device import set_execution

    (case,) = (case for case in CASES if case.title == case_name)
    experiment = experiment_of(case, folder, TINY if tiny else FULL)
    torch.set_num_threads(1)
    import_late_parts()
    loop: Iterator[Outcome]
    if who == BY_HAND:
        loop = by_hand(experiment, arrivals(experiment, 1))
    else:
        chosen = who_are(experiment)[who]
        set_execution(chosen, CPU)
        loop = ours(chosen, arrivals(chosen, 1))
    before, first = held()["bytes"], next(loop)
    started = time.process_time()
    for _ in islice(loop, steps):
        pass
    taken = time.process_time() - started
    return {"before_bytes": before, **held(), "cpu_s_a_step": taken / steps, **first._asdict()}


def stream(actors: int, classes: int, side: int, steps: int) -> dict[str, Any]:
    """Episodes a second, of three rounds."""
    from jobs.benchmarks.sampling import FIVE_WAYS, Case, streamed, synthetic

    with tempfile.TemporaryDirectory() as folder:
        return streamed(Case(synthetic(Path(folder), classes, side), FIVE_WAYS), actors, steps)


def main() -> None:
    """Print what was found."""
    what, *words = sys.argv[1:]
    if what == "memory":
        case_name, who, steps, folder, *rest = words
        found: dict[str, Any] = memory(case_name, who, int(steps), Path(folder), tiny="--tiny" in rest)
    else:
        actors, classes, side, number = map(int, words)
        found = stream(actors, classes, side, number)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
