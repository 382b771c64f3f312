"""Graphs of regions compiled, with artefacts that processes and runs share."""

import hashlib
import os
import time
import warnings
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any, Literal

import torch
from torch import Tensor, fx

from metaray.data.cache import cache_folder
from metaray.training.execution.tracing import Flat, traced

Backend = Literal["traced", "aot_eager", "inductor"]

COMPILED_FOLDER = "compiled"
CACHE_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"


class Compiler:
    """Makes compiled functions of regions; see `Runner`.

    Args:
        backend: "inductor" compiles; "aot_eager" does all that comes before that, and "traced" runs the graph as it is,
            so that nothing has to be waited for.
    """

    def __init__(self, backend: Backend = "inductor") -> None:
        self._backend = backend
        self.texts: list[str] = []
        """The graphs, in the order in which they were met."""
        self.seconds = 0.0
        """Spent on tracing, and on compiling for the way forward."""

    def __call__(self, function: Flat, inputs: Sequence[Tensor]) -> Flat:
        """What computes `function` on inputs like these; it is compiled when it is first called."""
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
        """Of all that was compiled so far."""
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


def share_artefacts() -> None:
    """Let torch keep what it compiles in metaray's cache folder, unless the environment names another place.

    Importing torch's compiler puts its own default there.
    """
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    if os.environ.get(CACHE_VARIABLE, default_cache_dir()) == default_cache_dir():
        os.environ[CACHE_VARIABLE] = str(cache_folder(COMPILED_FOLDER))


def _load_inductor() -> None:
    """Import it, which warns of parts of torch that it uses itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch._inductor.compile_fx  # noqa: F401 - used by torch.compile


def _text(graph: fx.GraphModule, inputs: Sequence[Tensor]) -> str:
    shapes = [[list(t.shape), list(t.stride()), str(t.dtype), t.requires_grad] for t in inputs]
    return f"{graph.code}\n{shapes}"
