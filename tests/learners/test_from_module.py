"""Networks that were trained elsewhere, in plain torch, as learners: they predict what their own loop predicts."""

import json
import math
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional as F

import metaray
from metaray.algorithms import CAVIA, MAML, Algorithm, MetaSGD, ProtoNet, Reptile
from metaray.data.preprocessing import ImagePreprocessing, VectorPreprocessing
from metaray.errors import InputError
from metaray.learners.learner import Learner
from metaray.models import MLP, Conv4
from metaray.models.model import seeded
from metaray.tasks import Binary, Regression
from tests.learners import foreign_nets
from tests.learners.foreign_nets import SIDE, Net, Normed
from tests.user_networks import Held, Plain, own

IMAGES = ImagePreprocessing(height=SIDE, width=SIDE, mean=(0.4,), std=(0.3,))
LABELS = ["b", "b", "a", "a", "c", "c"]


BUILD = f"{foreign_nets.__name__}:build"


def images(count: int, seed: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, SIDE, SIDE), dtype=np.uint8)


SUPPORT, QUERY = images(6, 0), images(5, 1)


def trained(classes: int | None = 3) -> Net:
    with seeded(7):
        return Net(classes)


def learner_of(module: nn.Module, **changes: Any) -> Learner:
    parts: dict[str, Any] = {"model": BUILD, "algorithm": MAML(inner_lr=0.3, inner_steps=4), "preprocessing": IMAGES}
    return metaray.Learner.from_module(module, **{**parts, "ways": 3, "shots": 2} | changes)


def by_hand(module: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> NDArray[np.float32]:
    """What a loop in plain torch predicts after so many steps on the support."""
    x, asked = ((torch.from_numpy(one)[:, None] / 255 - 0.4) / 0.3 for one in (SUPPORT, QUERY))
    y = torch.tensor([0, 0, 1, 1, 2, 2])
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(module(x), y).backward()
        optimizer.step()
    with torch.no_grad():
        found: NDArray[np.float32] = module(asked).softmax(dim=1).numpy()
    return found


def descent(module: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(module.parameters(), lr=0.3)


def adam(module: nn.Module) -> torch.optim.Optimizer:
    """As Reptile's authors have it in the inner loop."""
    return torch.optim.Adam(module.parameters(), lr=0.01, betas=(0.0, 0.999))


ADAPTING: list[tuple[Algorithm, Callable[[nn.Module], torch.optim.Optimizer]]] = [
    (MAML(inner_lr=0.3, inner_steps=4), descent),
    (Reptile(inner_lr=0.3, eval_steps=4, inner_optimizer="sgd"), descent),
    (Reptile(inner_lr=0.01, eval_steps=4), adam),
]


@pytest.mark.parametrize(("algorithm", "optimizer"), ADAPTING, ids=["maml", "reptile sgd", "reptile adam"])
@pytest.mark.parametrize("steps", [None, 9])
def test_it_predicts_what_a_loop_in_plain_torch_predicts(
    algorithm: Algorithm, optimizer: Callable[[nn.Module], torch.optim.Optimizer], steps: int | None
) -> None:
    task = learner_of(trained(), algorithm=algorithm, inner_steps=steps).adapt(SUPPORT, LABELS)
    module, less = trained(), trained()
    expected = by_hand(module, optimizer(module), steps or 4)
    np.testing.assert_allclose(task.predict_proba(QUERY), expected, atol=1e-5)
    assert not np.allclose(expected, by_hand(less, optimizer(less), 1), atol=1e-3), "the steps count"


def test_it_is_a_learner_like_any_other(tmp_path: Path) -> None:
    learner = learner_of(trained(), provenance={"paper": "arXiv:1803.02999"})
    learner.save(str(tmp_path / "learner"))
    np.save(tmp_path / "data.npy", np.concatenate([SUPPORT, QUERY]))
    code = f"""
import metaray, numpy, torch
torch.set_num_threads(1)
learner = metaray.load({str(tmp_path / "learner")!r}, trust=["tests"])
assert learner.provenance == {{"paper": "arXiv:1803.02999"}} and "tests" in learner.code
data = numpy.load({str(tmp_path / "data.npy")!r})
numpy.save({str(tmp_path / "found.npy")!r}, learner.adapt(data[:6], {LABELS}).predict_proba(data[6:]))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert np.array_equal(np.load(tmp_path / "found.npy"), learner.adapt(SUPPORT, LABELS).predict_proba(QUERY))


def test_the_module_is_left_alone_and_shares_nothing() -> None:
    module = trained().train()
    module.conv.eval()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    learner = learner_of(module)
    assert module.training and not module.conv.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    expected = learner.adapt(SUPPORT, LABELS).predict_proba(QUERY)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    assert np.array_equal(learner.adapt(SUPPORT, LABELS).predict_proba(QUERY), expected)


def test_an_embedding_takes_any_number_of_classes() -> None:
    learner = learner_of(trained(None), algorithm=ProtoNet(), ways=5)
    assert learner.ways is None and learner.adapt(SUPPORT, LABELS).predict_proba(QUERY).shape == (5, 3)


def test_networks_of_metarays_own() -> None:
    with seeded(3):
        module = Conv4(channels=4, pools=1).build(IMAGES.feature_shape, 3)
    learner = learner_of(module, model=Conv4(channels=4, pools=1))
    assert all(torch.equal(learner.meta[name], tensor) for name, tensor in module.named_parameters())


def test_regression() -> None:
    with seeded(5):
        module = MLP(hidden=(6,), batch_norm=False).build((1,), 1)
    how: dict[str, Any] = {"model": MLP(hidden=(6,), batch_norm=False), "preprocessing": VectorPreprocessing(size=1)}
    learner = learner_of(module, **how, algorithm=MAML(inner_lr=0.1), ways=1, task=Regression())
    predictions = learner.adapt([0.0, 1.0], [1.0, 2.0]).predict_values([0.5, 0.7])
    assert predictions.shape == (2,)
    for wrong in ({"ways": 3, "task": Regression()}, {"ways": 3, "task": Binary()}):
        with pytest.raises(InputError, match=r"tasks .*have 1 way.* \(got 3\)"):
            learner_of(module, **how, **wrong)
    with pytest.raises(InputError, match="algorithm protonet works with classes, but regression tasks have none"):
        learner_of(module, **how, ways=1, task=Regression(), algorithm=ProtoNet())


def test_running_statistics_are_left_behind() -> None:
    module = Normed(feature_shape=IMAGES.feature_shape, outputs=3)
    learner = learner_of(module, model=f"{foreign_nets.__name__}:Normed")
    assert learner.state == {} and set(learner.meta) == {name for name, _ in module.named_parameters()}
    assert learner.adapt(SUPPORT, LABELS).predict_proba(QUERY).shape == (5, 3)


def test_what_is_frozen_or_a_buffer_is_kept() -> None:
    shape: dict[str, Any] = {"feature_shape": IMAGES.feature_shape, "outputs": 3}
    with seeded(0):  # what it draws for attributes is drawn again wherever it is built
        module: Any = Held(**shape)
    with torch.no_grad():
        module.fixed.weight.add_(1)
        module.saved.add_(1)
    learner = learner_of(module, model=own("Held"))
    assert torch.equal(learner.state["fixed.weight"], module.fixed.weight)
    assert torch.equal(learner.state["saved"], module.saved) and "fixed.weight" not in learner.meta
    with seeded(1):
        module = Held(**shape)
    with pytest.raises(InputError, match="the module must hold nothing outside its state_dict"):
        learner_of(module, model=own("Held"))


def test_parameters_of_the_algorithm_itself(tmp_path: Path) -> None:
    module, algorithm = trained(), MetaSGD(inner_lr=0.1)
    told = r"parameters: meta_sgd learns 'inner_lr:classifier.bias' \[3\], .* besides the network; it needs 'inner_lr"
    with pytest.raises(InputError, match=told):
        learner_of(module, algorithm=algorithm)
    rates = {f"inner_lr:{name}": torch.full_like(tensor, 0.3) for name, tensor in module.named_parameters()}
    learner = learner_of(module, algorithm=algorithm, parameters=rates)
    expected = by_hand(module, descent(module), 1)
    np.testing.assert_allclose(learner.adapt(SUPPORT, LABELS).predict_proba(QUERY), expected, atol=1e-5)
    with pytest.raises(InputError, match="maml learns none besides the network; it has no 'inner_lr:classifier.bias'"):
        learner_of(module, parameters={"inner_lr:classifier.bias": torch.zeros(3)})
    wrong = rates | {"inner_lr:classifier.bias": torch.zeros(4)}
    with pytest.raises(InputError, match=r"inner_lr:classifier.bias: the model wants \[3\], .* \[4\]"):
        learner_of(module, algorithm=algorithm, parameters=wrong)


@pytest.mark.parametrize(
    ("module", "model", "message"),
    [
        (
            Net(4),
            BUILD,
            rf"classifier.bias: {BUILD} builds \[3\], the module has \[4\]: {BUILD} must build a network like",
        ),
        (Net(None), BUILD, rf"classifier.bias: {BUILD} builds \[3\], the module has absent"),
        (Net(3).double(), BUILD, "builds torch.float32, the module has torch.float64"),
        (Plain(feature_shape=(1, SIDE, SIDE), outputs=3), BUILD, "body.bias: .* builds absent, the module has"),
        (Net(3), f"{foreign_nets.__name__}:build_leaky", r"gives other answers than the module \(up to [\d.]+ apart\)"),
        (Net(3), f"{foreign_nets.__name__}:biuld", "Did you mean 'build'"),
        (Net(3), Conv4(pools=1), "body.0.conv.bias: conv4 builds .*, the module has absent: conv4 must"),
    ],
)
def test_another_network_than_the_module_is_refused(module: nn.Module, model: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        learner_of(module, model=model)


def test_weights_that_are_not_finite() -> None:
    module = trained()
    with torch.no_grad():
        assert module.conv.bias is not None
        module.conv.bias[1] = math.nan
    with pytest.raises(InputError, match="parameter conv.bias holds values that are not finite"):
        learner_of(module)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"ways": 1},
            r"ways: of classification tasks these have at least 2 ways \(got 1\); other kinds are given as task=",
        ),
        ({"shots": 0}, "ways, shots and queries: shots: .*greater than or equal to 1"),
        ({"inner_steps": -1}, r"inner_steps: 0 to 10000 \(got -1\)"),
        ({"provenance": {"a": {1, 2}}}, "provenance: give what JSON holds"),
        ({"preprocessing": ImagePreprocessing(height=4, width=4)}, "the module Net can't be asked"),
        ({"algorithm": CAVIA()}, "cavia learns .* besides the network"),
    ],
)
def test_what_makes_no_sense(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        learner_of(trained(), **changes)


def test_the_page_does_it(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "docs" / "guides" / "networks.md").read_text()
    module, script = (
        next(one for one in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if word in one)
        for word in ("# my_nets.py", "Learner.from_module")
    )
    net = "from torch import nn\n\nNet = lambda outputs: nn.Sequential(nn.Flatten(), nn.Linear(784, outputs))\n\n\n"
    (tmp_path / "my_nets.py").write_text(net + module)
    torch.save(nn.Sequential(nn.Flatten(), nn.Linear(784, 5)).state_dict(), tmp_path / "weights.pt")
    (tmp_path / "script.py").write_text(script)
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    learner = json.loads((tmp_path / "my-learner" / "learner.json").read_text())
    assert learner["code"].keys() == {"my_nets"} and learner["spec"]["ways"] == 5
