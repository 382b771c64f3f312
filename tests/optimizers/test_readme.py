"""The README's optimiser, as a user writes it down and trains with it."""

import subprocess
import sys
from pathlib import Path

import pytest

from jobs.glyphs import demo
from tests.patience import PATIENT_S

README = Path(__file__).parents[2] / "README.md"
TINY = ["num_steps=2", "evaluation.val_episodes=2", "evaluation.test_episodes=2", "evaluation.every=0"]
POLYNOMIAL = """

from metaray.optimizers.schedules import Schedule


class Polynomial(Schedule):
    kind: ClassVar[str] = "polynomial"
    power: float = 1.0

    def rate(self, outer_lr, step, num_steps, first):
        return outer_lr * (1 - (step - first) / (num_steps - first)) ** self.power
"""


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """A folder with an experiment, and beside it the module that the README shows."""
    block = next(one for one in README.read_text().split("```") if "class Signum(" in one)
    (tmp_path / "my_optimizers.py").write_text(block.removeprefix("python\n") + POLYNOMIAL)
    (tmp_path / "recipe.json").write_text(demo().to_json())
    return tmp_path


@pytest.mark.slow
def test_it_trains_in_process(example: Path) -> None:
    settings = [*TINY, "optimizer.kind=my_optimizers:Signum", "optimizer.momentum=0.95"]
    settings += ["optimizer.schedule.kind=my_optimizers:Polynomial", "optimizer.schedule.power=2"]
    settings += ["optimizer.groups.head.*.outer_lr=1e-4"]
    command = [sys.executable, "-m", "metaray", "train", "recipe.json", "--workers", "0"]
    for setting in settings:
        command += ["--set", setting]
    done = subprocess.run(command, cwd=example, capture_output=True, text=True, check=False, timeout=PATIENT_S)
    assert done.returncode == 0, done.stderr
    assert "parameters sha256: " in done.stdout
