"""The wheel, as a user installs it."""

import shutil
import subprocess
import sys
from pathlib import Path

from tests.patience import PATIENT_S

ROOT = Path(__file__).parents[1]


def built(folder: Path) -> Path:
    """The wheel, made from a copy, so that the checkout stays as it is."""
    source = folder / "source"
    shutil.copytree(ROOT / "platform", source / "platform", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-q"]
    subprocess.run([*command, str(source), "-w", str(folder)], check=True, timeout=PATIENT_S)
    (wheel,) = folder.glob("*.whl")
    return wheel
