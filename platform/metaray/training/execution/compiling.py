"""Graphs of regions compiled, with artefacts that processes and runs share."""

import hashlib
import json
import os
import platform
import re
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, fx

from metaray.data.cache import cache_folder
from metaray.training.execution.tracing import Flat, traced

Backend = Literal["traced", "aot_eager", "inductor"]
Alive = Callable[[], AbstractContextManager[Any]]

COMPILED_FOLDER = "compiled"
CACHE_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"
PROCESSOR = ("vendor_id|CPU implementer", "model name|CPU part", "cpu family|CPU architecture", "flags|Features")
"""What Linux says of the kind of a processor, by names that x86 or ARM have for it."""


class Compiler:
    """Makes compiled functions of regions; see `Runner`.

    Args:
        backend: "inductor" compiles; "aot_eager" does all that comes before that, and "traced" runs the graph as it is,
            so that nothing has to be waited for.
        alive: Entered when something is compiled, until the end of the block that is `watched`.
    """

    def __init__(self, backend: Backend = "inductor", alive: Alive = nullcontext) -> None:
        self._backend, self._alive = backend, alive
        self._watched: ExitStack | None = None
        self._beats = False
        self.texts: list[str] = []
        """The graphs, in the order in which they were met."""
        self.seconds = 0.0
        """Spent on tracing, and on compiling for the way forward."""

    def __call__(self, function: Flat, inputs: Sequence[Tensor]) -> Flat:
        """What computes `function` on inputs like these; it is compiled when it is first called."""
        if self._watched is not None and not self._beats:
            self._watched.enter_context(self._alive())
            self._beats = True
        started = time.perf_counter()
        graph = traced(function, inputs)
        self.texts.append(_text(graph, inputs))
        self.seconds += time.perf_counter() - started
        if self._backend == "traced":
            return graph
        if self._backend == "inductor":
            share_artefacts()
            _load_inductor()
        return self._timed(compiled(graph, self._backend))

    @contextmanager
    def watched(self) -> Iterator[None]:
        """A block in which pieces may be met that are to be compiled: their derivatives are before it ends.

        That should be before the first step. Where an algorithm computes something else later, without having said so,
        whoever watches over the rank must not take it for one that hangs.
        """
        if self._watched is not None:
            yield
            return
        try:
            with ExitStack() as self._watched:
                yield
        finally:
            self._watched, self._beats = None, False

    def _timed(self, function: Flat) -> Flat:
        done = False

        def timed(*inputs: Tensor) -> Sequence[Tensor]:
            nonlocal done
            if done:
                return function(*inputs)
            started = time.perf_counter()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what torch's compiler says of its own doings
                found, done = function(*inputs), True
            self.seconds += time.perf_counter() - started
            return found

        return timed

    @property
    def digest(self) -> str:
        """Digest of all that was compiled so far."""
        return hashlib.sha256("\n".join(self.texts).encode()).hexdigest()


def compiled(graph: fx.GraphModule, backend: str) -> Flat:
    """A graph, compiled by one of torch's backends for inputs of fixed shapes."""
    options: dict[str, Any] = {}
    if backend == "inductor":
        # Random numbers as uncompiled code draws them; no kernel chosen by how fast it was just now.
        options = {"fallback_random": True, "max_autotune": False, "compile_threads": 1}
        options["cpp.threads"] = torch.get_num_threads()
    function: Callable[..., Any] = torch.compile(
        graph, dynamic=False, fullgraph=True, backend=backend, options=options or None
    )
    return function


def compiler_lacking(device: torch.device) -> str | None:
    """What torch cannot compile without, if it is not here."""
    if device.type == "cuda":
        from torch.utils._triton import has_triton

        return None if has_triton() else "triton, which compiles for GPUs, is not installed"
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        return "there is no C++ compiler (such as g++) on this machine"
    return None


def compiler_version(device: torch.device) -> str:
    """What stands for the compiler here and its version; empty where there is none."""
    if compiler_lacking(device) is not None:
        return ""
    if device.type == "cuda":
        return f"triton {version('triton')}"
    from torch._inductor.cpp_builder import get_compiler_version_info, get_cpp_compiler

    return hashlib.sha256(get_compiler_version_info(get_cpp_compiler()).encode()).hexdigest()[:12]


def artefacts_folder() -> Path:
    """Where this machine keeps what it compiles: apart from machines with other processors that share the cache.

    Kernels for a CPU are compiled for the very processor that is here, and torch tells two that have AVX-512 apart by
    nothing else: what one of them does not know would end the process.
    """
    return cache_folder(COMPILED_FOLDER) / _kind_of_processor()


@lru_cache
def _kind_of_processor() -> str:
    """A digest of the processor's model and of all that it can do."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        text = platform.processor()
    said = [re.search(rf"^(?:{name})\s*:\s*(.+)$", text, re.MULTILINE) for name in PROCESSOR]
    told = [platform.machine(), *((found[1] if found else "") for found in said)] if any(said) else [text]
    capability = torch.backends.cpu.get_cpu_capability()
    words = [" ".join(sorted(one.split())) for one in [*told, capability]]
    return hashlib.sha256(json.dumps(words).encode()).hexdigest()[:12]


def share_artefacts() -> None:
    """Let torch keep what it compiles in metaray's cache folder, unless the environment names another place.

    Importing torch's compiler puts its own default there.
    """
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    if os.environ.get(CACHE_VARIABLE, default_cache_dir()) == default_cache_dir():
        os.environ[CACHE_VARIABLE] = str(artefacts_folder())


def _load_inductor() -> None:
    """Import it, which warns of parts of torch that it uses itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch._inductor.compile_fx  # noqa: F401 - used by torch.compile


def _text(graph: fx.GraphModule, inputs: Sequence[Tensor]) -> str:
    shapes = [[list(t.shape), list(t.stride()), str(t.dtype), t.requires_grad] for t in inputs]
    return f"{graph.code}\n{shapes}"
