"""The optimiser and the schedule of docs/guides/experiments.md, as a user writes them down and trains with them."""

import subprocess
import sys
from pathlib import Path

import pytest

from jobs.glyphs import demo
from tests.docs.pages import blocks as blocks_of
from tests.patience import PATIENT_S

PAGE = Path(__file__).parents[2] / "docs" / "guides" / "experiments.md"
TINY = ["num_steps=2", "evaluation.val_episodes=2", "evaluation.test_episodes=2", "evaluation.every=0"]


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """A folder with an experiment, and beside it the module that the page shows."""
    blocks = [
        block.text for block in blocks_of(PAGE) if "class Signum(" in block.text or "class Polynomial(" in block.text
    ]
    assert len(blocks) == 2
    (tmp_path / "my_optimizers.py").write_text("\n\n".join(blocks))
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
