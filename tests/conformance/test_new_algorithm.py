"""docs/new_algorithm.md is true: its algorithm needs one file and one line, and the suite picks it up."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLUGIN = """
import sys
from pathlib import Path
sys.path.insert(0, {folder!r})
from metaray.algorithms import ALGORITHMS
from sign_maml import SignMAML
ALGORITHMS["sign_maml"] = SignMAML
"""


@pytest.mark.slow
def test_the_suite_picks_it_up(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "new_algorithm.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(code.splitlines()) <= 45
    (tmp_path / "sign_maml.py").write_text(code)
    (tmp_path / "with_sign_maml.py").write_text(PLUGIN.format(folder=str(tmp_path)))
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "pytest", "-p", "with_sign_maml", "tests/conformance", "-k", "sign_maml"]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    (passed,) = re.findall(r"(\d+) passed", done.stdout)
    assert int(passed) >= 40, done.stdout[-500:]
