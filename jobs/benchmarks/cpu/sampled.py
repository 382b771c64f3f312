"""Episodes a second: in one process beside other samplers, and streamed through sampler actors."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from jobs.benchmarks.cpu import bounds
from jobs.benchmarks.cpu.fresh import json_of
from jobs.benchmarks.cpu.runs import Job, Setting
from jobs.benchmarks.cpu.turns import Turn, alternated
from jobs.benchmarks.peers.client import Failed, Refused
from jobs.benchmarks.sampling import CONTENDERS, FIVE_WAYS, META_BATCH, Case, Contender, images_of, synthetic, turn
from metaray.episodes.episode import EpisodeSpec

SECTION = "sampling"
LEARN2LEARN = "learn2learn's fused taskset"
ACTORS = (1, 2)
SHARE_S = 0.25
"""Of processor time, a turn."""
ABOUT = f"""Microseconds of processor time an episode of 5 ways, 1 shot and 15 queries, drawn from 1,000 classes of 20 \
grey images of 28x28 that lie in memory, one thread. metaray draws meta-batches of {META_BATCH}, as a pure function of \
their index; the stand-in is learn2learn's published algorithm in Python, the bound plain numpy. Streamed, so many \
sampler actors send meta-batches to one process that only takes them: episodes a second by the clock."""


def jobs(setting: Setting) -> Iterator[Job]:
    """In process, then by each number of actors."""
    classes = 1000 if setting.size.side == 28 else 60
    told = {"classes": classes, "side": setting.size.side, "turns": setting.turns, "seconds": setting.seconds}
    yield Job(SECTION, "in one process", partial(in_process, classes, setting), told)
    for actors in ACTORS:
        name = f"streamed through {actors} {'actor' if actors == 1 else 'actors'}"
        yield Job(SECTION, name, partial(streamed_by, actors, classes, setting), told)


def in_process(classes: int, setting: Setting) -> dict[str, Any]:
    """metaray, its bound, the stand-in, and learn2learn itself where it is there."""
    case = Case(synthetic(setting.scratch, classes, setting.size.side), FIVE_WAYS)
    turns = {name: ours(make(case)) for name, make in CONTENDERS.items()}
    absent: dict[str, str] = {}
    try:
        turns[LEARN2LEARN] = theirs(case, setting)
    except (Refused, Failed) as error:
        absent[LEARN2LEARN] = str(error)
    times = alternated(turns | {bounds.LOOP: bounds.python_loop()}, turns=setting.turns, seconds=setting.seconds)
    return {"python_million_steps_per_s": times.pop(bounds.LOOP), "us_an_episode": times, "absent": absent}


def ours(contender: Contender) -> Turn:
    """One of `sampling`'s, in this process."""
    return lambda: turn(contender, SHARE_S)[0]


def theirs(case: Case, setting: Setting) -> Turn:
    """learn2learn, in its process.

    Raises:
        Refused: if it is not there.
    """
    peers = setting.peers
    if "learn2learn" not in peers.versions:
        raise Refused(peers.absent.get("learn2learn") or peers.absent["all"])
    images, _ = images_of(case)
    arrays = {
        "images": images.reshape(-1, *images.shape[2:]),
        "labels": np.arange(len(images)).repeat(images.shape[1]),
    }
    peers.ask("learn2learn", "taskset", arrays, ways=case.spec.largest[0], per_class=per_class_of(case.spec))

    def sample() -> float:
        taken: float = peers.ask("learn2learn", "sample", seconds=SHARE_S)["cpu_us_an_episode"]
        return taken

    return sample


def per_class_of(spec: EpisodeSpec) -> int:
    """Examples a class, of both sides."""
    _, shots, queries = spec.largest
    assert queries is not None
    return shots + queries


def streamed_by(actors: int, classes: int, setting: Setting) -> dict[str, Any]:
    """Through so many actors, in a fresh process, which starts Ray."""
    steps = 300 if setting.size.side == 28 else 5
    words = ["stream", str(actors), str(classes), str(setting.size.side), str(steps)]
    return json_of("jobs.benchmarks.cpu.fresh", words)
