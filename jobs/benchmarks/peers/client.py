"""Metaray's side of a peer's process."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from jobs.benchmarks.peers.install import NOTE
from jobs.benchmarks.peers.wire import Arrays, receive, send

ROOT = Path(__file__).resolve().parents[3]
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    "PYTHONWARNINGS": "ignore",
}
TIMEOUT_S = 180.0
"""For an answer; compiling takes longest."""


class Refused(Exception):
    """The library has nothing for what was asked; the message says so."""


class Failed(Exception):
    """The peer's process has failed, with its traceback, or is gone."""


class Peer:
    """One library's process, which begins at once. A context manager, at whose end it is gone.

    Args:
        name: of the library, as `serve` takes it.
        python: of the environment that has it.
        timeout_s: for each answer.
    """

    def __init__(self, name: str, python: Path, timeout_s: float = TIMEOUT_S) -> None:
        self.name, self._timeout_s = name, timeout_s
        self._process = subprocess.Popen(
            [str(python), "-m", "jobs.benchmarks.peers.serve", name],
            cwd=ROOT,
            env={**os.environ, **ENVIRONMENT},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=sys.stderr,
        )

    def ask(self, do: str, arrays: Arrays | None = None, **words: Any) -> dict[str, Any]:
        """The words of its answer.

        Raises:
            Refused: if the library has nothing for it.
            Failed: if an exception was raised there, if the process is gone, or if it takes too long.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        late = threading.Timer(self._timeout_s, self._process.kill)
        late.start()
        try:
            send(self._process.stdin, {"do": do, **words}, arrays)  # type: ignore[arg-type]
            answer = receive(self._process.stdout).words  # type: ignore[arg-type]
        except (EOFError, OSError) as error:
            why = (
                f"no answer within {self._timeout_s:.0f} s" if late.finished.is_set() else f"its process ended: {error}"
            )
            raise Failed(f"{self.name}: {why}") from error
        finally:
            late.cancel()
        if "refused" in answer:
            raise Refused(answer["refused"])
        if "failed" in answer:
            raise Failed(f"{self.name}: {answer['failed']}")
        return answer

    def close(self) -> None:
        """End it."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:
                    continue  # what was on its way to a process that is gone
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


class Peers:
    """The libraries of an environment, each in a process that begins when it is first asked. A context manager.

    Args:
        folder: of the environment that `make peers` made; where there is none, nothing is there.

    Attributes:
        versions: of what is there, by library.
        absent: why something is not, likewise.
    """

    def __init__(self, folder: Path) -> None:
        self._python, self._running = folder.absolute() / "bin" / "python", dict[str, Peer]()
        note = folder / NOTE
        known = json.loads(note.read_text()) if note.exists() else {"versions": {}, "absent": {"all": NONE}}
        self.versions: dict[str, str] = known["versions"]
        self.absent: dict[str, str] = known["absent"]

    def start(self, name: str) -> Peer:
        """A process of a library's own, which the caller ends."""
        return Peer(name, self._python)

    def ask(self, name: str, do: str, arrays: Arrays | None = None, **words: Any) -> dict[str, Any]:
        """See `Peer.ask`; after a failure the next question begins a new process."""
        peer = self._running.get(name)
        if peer is None:
            peer = self._running[name] = self.start(name)
        try:
            return peer.ask(do, arrays, **words)
        except Failed:
            self._running.pop(name).close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for peer in self._running.values():
            peer.close()


NONE = "there is no environment of theirs: run `make peers`"
