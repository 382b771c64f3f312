"""Commands that only look import nothing heavy that they do not need."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from metaray.experiment.experiment import Experiment
from metaray.records.events import Fanout
from metaray.records.storage import Storage
from tests.cli.test_app import HEAVY
from tests.patience import PATIENT_S
from tests.training.whole_runs import train_in_process

ROOT = Path(__file__).resolve().parents[2]
READS_FILES = {"numpy", "pyarrow", "pydantic"}
MAY_IMPORT = {
    "--version": set[str](),
    "recipes RECIPES": {"pydantic"},
    "runs list --storage RUNS": READS_FILES,
    "runs show x --storage RUNS": READS_FILES,
    "runs show x --by group --storage RUNS": READS_FILES,
    "runs show nothing --storage RUNS": READS_FILES,
    "runs clean --storage RUNS": READS_FILES,
    "data describe STORE": READS_FILES | {"PIL", "rich"},
    "registry list --tracking-uri DATABASE": {"pydantic", "rich"},
    "registry show nothing --tracking-uri DATABASE": {"pydantic", "rich"},
    "jobs list": {"pydantic"},
}


@pytest.fixture(scope="module")
def places(
    tmp_path_factory: pytest.TempPathFactory,
    make_experiment: Callable[..., Experiment],
    tiny_store: Path,
    database: str,
) -> dict[str, str]:
    """What there is to look at, by the word for it: a run, a store, recipes, a registry."""
    runs = str(tmp_path_factory.mktemp("looked-at") / "runs")
    train_in_process(make_experiment(), Storage(runs).child("x"), Fanout([]))
    return {"RUNS": runs, "RECIPES": str(ROOT / "jobs/glyphs.py"), "STORE": str(tiny_store), "DATABASE": database}


@pytest.mark.parametrize("command", MAY_IMPORT)
def test_looking_takes_no_seconds_of_imports(command: str, places: dict[str, str]) -> None:
    script = (
        "import sys; from metaray.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    words = [places.get(word, word) for word in command.split()]
    done = subprocess.run(
        [sys.executable, "-c", script, *words], capture_output=True, text=True, check=False, timeout=PATIENT_S
    )
    assert done.returncode == 0, done.stderr
    assert HEAVY & set(done.stdout.splitlines()[-1].split()) <= MAY_IMPORT[command]
