"""Choosing a device."""

import subprocess
import sys
from collections.abc import Callable

import pytest
import torch

from metaray.errors import InputError
from metaray.experiment.experiment import Experiment
from metaray.training.device import choose_device, set_execution


@pytest.mark.parametrize("there", [True, False])
def test_auto_takes_what_is_there(there: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert choose_device().type == ("cuda" if there else "cpu") and choose_device("cpu").type == "cpu"


def test_a_gpu_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="'cuda' asked for, but torch sees no GPU here; use --device cpu"):
        choose_device("cuda")
    with pytest.raises(InputError, match="unknown device 'tpu'"):
        choose_device("tpu")


def test_threads_are_the_experiments(make_experiment: Callable[..., Experiment]) -> None:
    try:
        set_execution(make_experiment(threads_per_worker=2), torch.device("cpu"))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


KEPT = """
import sys, torch
from metaray.experiment.experiment import Experiment
from metaray.training.device import execution

def chosen():
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    sides = (matmul, cudnn.conv, cudnn.rnn, torch.backends.mkldnn.matmul)
    return [torch.get_num_threads(), cudnn.deterministic, cudnn.benchmark] + [side.fp32_precision for side in sides]

exec(sys.argv[1])
torch.set_num_threads(2)
torch.backends.cudnn.benchmark = True
before, experiment = chosen(), Experiment.from_json(sys.stdin.read())
with execution(experiment, torch.device("cpu")):
    assert chosen() == [3, *before[1:]], chosen()
assert chosen() == before, chosen()
try:
    with execution(experiment, torch.device("cuda")):
        assert chosen()[:-1] == [3, True, False, "ieee", "none", "none"], chosen()
        raise KeyError
except KeyError:
    assert chosen() == before, (before, chosen())
"""


@pytest.mark.parametrize(
    "choice",
    [
        "torch.set_float32_matmul_precision('medium')",
        "torch.backends.cuda.matmul.fp32_precision = 'tf32'",
    ],
)
def test_what_a_process_has_chosen_comes_back(choice: str, make_experiment: Callable[..., Experiment]) -> None:
    """Who judges a learner in a notebook goes on with that notebook's threads and kernels, also after an error."""
    text = make_experiment(threads_per_worker=3).to_json()
    done = subprocess.run([sys.executable, "-c", KEPT, choice], input=text, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
