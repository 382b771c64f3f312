"""A peer's process: builds what it is asked for, says what it computes, and takes the time of it.

    .venv-peers/bin/python -m jobs.benchmarks.peers.serve learn2learn

Requests come in on standard input, answers go out on standard output; what the library prints goes to standard error.
The words of a request begin with "do":

- "about": versions of the packages, by name
- "build": weights, episodes and a Method; answered with the loss and the norm of the gradient, and, where it had to be
  compiled, the seconds that that took
- "turn": so many meta-steps ("steps"), timed
- "taskset": images and labels to sample from; "sample": tasks for so many seconds of processor time, timed
- "memory": the most that the process ever held, and what it holds now

A library that has nothing for a request refuses it, and an exception is told with its traceback; both go on.
"""

import gc
import importlib
import os
import sys
import time
import traceback
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

from jobs.benchmarks.peers.wire import Message, Method, receive, send

Answer = dict[str, Any]
STATUS = Path("/proc/self/status")


class Server:
    """One library's.

    Args:
        library: the module that stands for it, such as `in_learn2learn`.
    """

    def __init__(self, library: Any) -> None:
        self._library, self._learner, self._sample = library, None, None
        self._can: dict[str, Callable[[Message], Answer]] = {
            "about": self._about,
            "build": self._build,
            "turn": self._turn,
            "taskset": self._taskset,
            "sample": self._sampled,
            "memory": lambda _: memory(),
        }

    def answer(self, message: Message) -> Answer:
        """What a request is answered with; no exception escapes."""
        try:
            return self._can[message.words["do"]](message)
        except Exception as error:  # noqa: BLE001 - told to whoever asked; what the library cannot do, others can
            if type(error).__name__ == "Refused":
                return {"refused": str(error)}
            return {"failed": traceback.format_exc()}

    def _about(self, _: Message) -> Answer:
        return {"versions": {package: version(package) for package in self._library.PACKAGES}}

    def _build(self, message: Message) -> Answer:
        self._learner = None
        gc.collect()
        started = time.perf_counter()
        learner = self._library.build(Method(**message.words["method"]), message.arrays)
        outcome = learner.outcome()
        self._learner = learner
        return {**outcome._asdict(), "first_s": time.perf_counter() - started}

    def _turn(self, message: Message) -> Answer:
        learner = self._learner
        assert learner is not None, "nothing is built"
        started = time.process_time()
        for _ in range(message.words["steps"]):
            learner.step()
        return {"cpu_s": time.process_time() - started}

    def _taskset(self, message: Message) -> Answer:
        words = message.words
        self._sample = self._library.taskset(message.arrays, words["ways"], words["per_class"])
        return {}

    def _sampled(self, message: Message) -> Answer:
        sample, tasks = self._sample, 0
        assert sample is not None, "there is no taskset"
        started = time.process_time()
        while time.process_time() - started < message.words["seconds"]:
            sample()
            tasks += 1
        return {"cpu_us_an_episode": 1e6 * (time.process_time() - started) / tasks}


def memory() -> Answer:
    """Bytes that this process held at most, and holds now."""
    lines = dict(line.split(":", 1) for line in STATUS.read_text().splitlines() if ":" in line)
    return {name: 1024 * int(lines[key].split()[0]) for name, key in (("peak_bytes", "VmHWM"), ("bytes", "VmRSS"))}


def serve(server: Server, requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer until the other side closes the pipe."""
    while True:
        try:
            message = receive(requests)
        except EOFError:
            return
        send(answers, server.answer(message))


def prepare(name: str) -> None:
    """See that the library computes with one thread, and that it can be imported."""
    if name == "jax":  # takes as many threads as there are processors for it
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        return
    import torch

    from jobs.benchmarks.peers.learner import import_late_parts

    torch.set_num_threads(1)
    import_late_parts()
    if name == "learn2learn":  # parts that this comparison has no use for, and that need gym and torchvision
        for part in ("gym", "text", "vision"):
            sys.modules[f"learn2learn.{part}"] = ModuleType(f"learn2learn.{part}")


def main() -> None:
    """Serve one library."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    name = sys.argv[1]
    prepare(name)
    serve(Server(importlib.import_module(f"jobs.benchmarks.peers.in_{name}")), sys.stdin.buffer, answers)


if __name__ == "__main__":
    main()
