"""What cannot be computed as asked for falls back before step 0, by name."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from metaray.algorithms import ANIL, CAVIA, MAML, ProtoNet, Reptile
from metaray.algorithms.families.inner_lr import Schedule
from metaray.episodes.episode import EpisodeSpec
from metaray.errors import InputError
from metaray.experiment.experiment import Experiment
from metaray.models import MLP
from metaray.models.custom import Custom
from metaray.training.checks import execution
from metaray.training.checks.execution import decide
from metaray.training.checks.preflight import preflight
from metaray.training.execution.compiling import compiler_lacking

CPU, GPU = torch.device("cpu"), torch.device("cuda")
MakeExperiment = Callable[..., Experiment]


class Asks(nn.Module):
    """Looks at its activations."""

    def __init__(self, feature_shape: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        self.layer = nn.Linear(16 * 16, outputs)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x.flatten(1))
        return y * 2 if float(y.detach().sum()) > 1e9 else y


class Keeps(torch.autograd.Function):
    """x, with half of its gradient: a graph of what it does forward knows nothing of that."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x * 1

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * 0.5


class OwnBackward(Asks):
    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x.flatten(1))
        return y + Keeps.apply(y)  # type: ignore[no-any-return,no-untyped-call]


@pytest.fixture(autouse=True)
def has_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution, "compiler_lacking", lambda device: None)


def test_plain_kinds_need_no_check(make_experiment: MakeExperiment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution, "_unfit", lambda *_: pytest.fail("checked"))
    for asked, chunk, kind in (
        ("auto", None, "each"),
        ("auto", 2, "batched"),
        ("each", 2, "each"),
        ("batched", 2, "batched"),
        ("batched", None, "each"),
    ):
        found = decide(make_experiment(execution=asked, chunk_size=chunk), CPU)
        assert (found.kind, found.why) == (kind, "")


@pytest.mark.parametrize("chunk_size", [None, 2])
@pytest.mark.parametrize("algorithm", [MAML(inner_lr=0.1, inner_steps=2), ANIL(inner_lr=0.1), ProtoNet(), Reptile()])
def test_what_can_be_compiled_is(algorithm: Any, chunk_size: int | None, make_experiment: MakeExperiment) -> None:
    found = decide(make_experiment(algorithm=algorithm, chunk_size=chunk_size, execution="compiled"), CPU)
    assert (found.kind, found.why) == ("compiled", "")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"model": Custom(path=f"{__name__}:Asks")}, "maml on custom: computed each, because no graph"),
        ({"model": Custom(path=f"{__name__}:OwnBackward")}, "would be another one"),
        ({"algorithm": CAVIA(inner_lr=0.1, context_size=4)}, "cavia on mlp: .*no inner step or forward pass"),
    ],
)
def test_what_cannot_be_compiled_falls_back_by_name(
    changes: dict[str, Any], why: str, make_experiment: MakeExperiment
) -> None:
    experiment = make_experiment(execution="compiled", **changes)
    found = decide(experiment, CPU)
    assert found.kind == "each"
    assert re.search(why, found.why)
    assert found.why in preflight(experiment)
    assert decide(experiment, CPU) == found


def test_unequal_episodes_are_not_compiled_one_by_one(make_experiment: MakeExperiment) -> None:
    unequal = make_experiment(execution="compiled", episodes=EpisodeSpec(ways=3, shots=(1, 3), queries=2))
    found = decide(unequal, CPU)
    assert (found.kind, "its episodes are of unequal shapes" in found.why) == ("each", True)


def test_without_a_compiler(make_experiment: MakeExperiment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution, "compiler_lacking", lambda device: "there is no C++ compiler")
    found = decide(make_experiment(execution="compiled", chunk_size=2), CPU)
    assert (found.kind, found.why) == ("batched", "maml on mlp: computed batched, because there is no C++ compiler")


def test_a_machine_without_gcc_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._inductor import cpp_builder
    from torch._inductor.exc import InvalidCxxCompiler

    def none() -> str:
        raise InvalidCxxCompiler

    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", none)
    assert "no C++ compiler" in str(compiler_lacking(CPU))


def test_a_graph_needs_a_gpu_and_an_algorithm_that_stays_the_same(make_experiment: MakeExperiment) -> None:
    asked = make_experiment(execution="graph")
    assert decide(asked, CPU).why == "maml on mlp: computed compiled, because CUDA graphs need a GPU"
    assert decide(asked, GPU).kind == "graph"
    again = decide(make_experiment(execution="graph", recompute_inner_steps=True), GPU)
    assert (again.kind, "cannot put random numbers back" in again.why) == ("compiled", True)
    annealed = make_experiment(execution="graph", algorithm=MAML(inner_lr=Schedule(steps=(0, 3), values=(0.1, 0.05))))
    found = decide(annealed, GPU)
    assert (found.kind, "changes from step to step" in found.why) == ("compiled", True)


def test_recomputing_without_inner_steps_is_refused(make_experiment: MakeExperiment) -> None:
    preflight(make_experiment(recompute_inner_steps=True))
    with pytest.raises(InputError, match="recompute_inner_steps: algorithm protonet takes no inner steps"):
        preflight(make_experiment(recompute_inner_steps=True, algorithm=ProtoNet(), model=MLP(hidden=(8,))))
