"""What compiled pieces are made with, and where they are kept."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor

from metaray.training.execution import compiling
from metaray.training.execution.compiling import (
    CACHE_VARIABLE,
    Compiler,
    artefacts_folder,
    compiler_lacking,
    compiler_version,
    share_artefacts,
)

CPU = torch.device("cpu")

TWICE = """
import torch
from torch._dynamo.utils import counters
from metaray.training.execution.compiling import Compiler

torch.set_num_threads(1)
x = torch.linspace(-1, 1, 64).requires_grad_()
function = Compiler()(lambda given: [(given.sin() * given).exp()], [x])
torch.autograd.grad(function(x)[0].sum(), x)
found = counters["aot_autograd"]
print(found["autograd_cache_hit"], found["autograd_cache_miss"])
"""


@pytest.mark.slow
def test_a_second_process_compiles_nothing_again(tmp_path: Path) -> None:
    """Slow: two fresh processes that import torch's compiler, and a C++ compiler."""
    if compiler_lacking(CPU) is not None:
        pytest.skip("no C++ compiler here")
    variables = {name: value for name, value in os.environ.items() if name not in (CACHE_VARIABLE, "TRITON_CACHE_DIR")}
    variables["METARAY_CACHE"] = str(tmp_path)

    def run() -> list[str]:
        command = [sys.executable, "-c", TWICE]
        return subprocess.run(command, env=variables, check=True, capture_output=True, text=True).stdout.split()

    assert run() == ["0", "1"]
    made = sorted(path for path in tmp_path.rglob("*.so"))
    assert made
    assert run() == ["1", "0"]
    assert sorted(path for path in tmp_path.rglob("*.so")) == made


def test_the_environment_may_name_another_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir  # seconds, for which no collection waits

    monkeypatch.setenv("METARAY_CACHE", str(tmp_path))
    monkeypatch.setenv(CACHE_VARIABLE, "/elsewhere")
    share_artefacts()
    assert os.environ[CACHE_VARIABLE] == "/elsewhere"
    monkeypatch.setenv(CACHE_VARIABLE, default_cache_dir())
    share_artefacts()
    assert os.environ[CACHE_VARIABLE] == str(artefacts_folder())
    assert artefacts_folder().parent == tmp_path / "compiled"


INTEL = "vendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel name\t: Xeon\nflags\t\t: fpu avx2 {}\n"
ARM = "CPU implementer\t: 0x41\nCPU architecture: 8\nCPU part\t: 0xd40\nFeatures\t: fp asimd {}\n"


@pytest.mark.parametrize("text", [INTEL, ARM])
def test_machines_with_other_processors_have_artefacts_of_their_own(
    text: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Who share a home directory: torch compiles for the processor that is there, and would load that anywhere."""
    monkeypatch.setenv("METARAY_CACHE", str(tmp_path))

    def folder(*words: str) -> Path:
        monkeypatch.setattr(
            Path, "read_text", lambda _: f"processor\t: 3\ncpu MHz\t: 2{len(words)}00\n{text}".format(*words)
        )
        compiling._kind_of_processor.cache_clear()
        return artefacts_folder()

    more, less = folder("avx512f sve"), folder("avx512")
    assert more != less
    assert folder("sve avx512f", "other MHz") == more, "in which order they are told, and what changes by the minute"
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "NO AVX")
    assert folder("avx512f sve") != more, "as the environment may have it"
    compiling._kind_of_processor.cache_clear()


def test_what_is_compiled_late_counts_as_alive_until_its_derivatives_are_there() -> None:
    doing: list[str] = []

    @contextmanager
    def alive() -> Iterator[None]:
        doing.append("beats")
        yield
        doing.append("still")

    compiler, x = Compiler("traced", alive), torch.ones(3)
    with compiler.watched():
        doing.append("known")
    with compiler.watched():
        with compiler.watched():
            compiler(lambda given: [given * 2], [x])
            compiler(lambda given: [given * 3], [x])
        doing.append("backward")
    with pytest.raises(RuntimeError, match="cannot"), compiler.watched():
        compiler(lambda given: [given * 4], [x])
        raise RuntimeError("cannot")
    assert doing == ["known", "beats", "backward", "still", "beats"]


def test_a_digest_stands_for_the_graphs() -> None:
    def of(factor: float, x: Tensor) -> str:
        compiler = Compiler("traced")
        compiler(lambda given: [given * factor], [x])
        return compiler.digest

    x = torch.ones(3)
    assert of(2.0, x) == of(2.0, x + 1)
    assert len({of(2.0, x), of(3.0, x), of(2.0, torch.ones(4)), of(2.0, torch.ones(3, requires_grad=True))}) == 4


def test_random_numbers_and_threads_are_fixed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What torch's compiler would else choose by itself."""
    seen = {}

    def compile(_graph: object, **options: object) -> object:  # noqa: A001
        seen.update(options)
        return lambda *inputs: inputs

    monkeypatch.setattr(torch, "compile", compile)
    compiling.compiled(torch.fx.symbolic_trace(torch.nn.Identity()), "inductor")
    assert seen["options"] == {
        "fallback_random": True,
        "max_autotune": False,
        "compile_threads": 1,
        "cpp.threads": torch.get_num_threads(),
    }


def test_the_compiler_has_a_version() -> None:
    assert bool(compiler_version(CPU)) == (compiler_lacking(CPU) is None)
