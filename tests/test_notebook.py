"""docs/first_steps.ipynb and docs/own_data.ipynb, run by Jupyter's own kernel where only the wheel is installed."""

import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from tests.patience import PATIENT_S
from tests.wheel import ROOT, built

DOCS = ROOT / "docs"


def installed(wheel: Path, folder: Path) -> Path:
    """Python of a new environment that has the wheel, and finds what it depends on where this one has it."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True, timeout=PATIENT_S)
    python = folder / "bin" / "python"
    where = subprocess.run(
        [str(python), "-c", "import sysconfig; print(sysconfig.get_paths()['purelib'])"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", "-q", str(wheel)]
    subprocess.run(pip, check=True, timeout=PATIENT_S)
    others = [path for path in {sysconfig.get_paths()["purelib"], *site_packages()} if Path(path) != Path(where)]
    (Path(where) / "dependencies.pth").write_text("\n".join(others) + "\n")
    return python


def site_packages() -> list[str]:
    return [path for path in sys.path if path.endswith("site-packages")]


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a kernel that has the wheel, and its environment."""
    pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    folder = tmp_path_factory.mktemp("kernels")
    python = installed(built(folder), folder / "venv")
    subprocess.run(
        [str(python), "-m", "ipykernel", "install", "--prefix", str(folder), "--name", "wheel"],
        check=True,
        capture_output=True,
        timeout=PATIENT_S,
    )
    assert (folder / "share" / "jupyter" / "kernels" / "wheel").is_dir()
    return folder


def executed(notebook: Path, kernels: Path, work: Path) -> list[Any]:
    """The outputs of its cells, run in the folder `work`."""
    import nbformat
    from nbclient import NotebookClient

    work.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_PATH", str(kernels / "share" / "jupyter"))
        patch.setenv("PATH", str(kernels / "venv" / "bin"), prepend=os.pathsep)
        patch.delenv("PYTHONPATH", raising=False)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        book = nbformat.read(str(notebook), as_version=4)
        client = NotebookClient(
            book, timeout=PATIENT_S, kernel_name="wheel", resources={"metadata": {"path": str(work)}}
        )
        client.execute()
    outputs = [output for cell in book.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    return outputs


def texts_with(words: str, outputs: list[Any]) -> list[str]:
    """What cells came to that has these words in it."""
    found = [output.data.get("text/plain", "") for output in outputs if "data" in output]
    return [text.strip("'") for text in found if words in text]


@pytest.mark.slow
def test_from_the_wheel_to_a_learner_that_adapts(kernels: Path, tmp_path: Path) -> None:
    outputs = executed(DOCS / "first_steps.ipynb", kernels, tmp_path / "work")
    shown = [output.data.get("text/html", "") for output in outputs if "data" in output]
    assert any("<pre>protocol: 5-way 1-shot" in text for text in shown), "the report shows itself"
    (right,) = texts_with("of 15 right", outputs)
    assert int(right.split()[0]) >= 9, right
    assert (tmp_path / "work" / "my-task").is_dir() and (tmp_path / "work" / "mlflow.db").is_file()


@pytest.mark.slow
def test_from_ones_own_images_and_table(kernels: Path, tmp_path: Path) -> None:
    outputs = executed(DOCS / "own_data.ipynb", kernels, tmp_path / "work")
    (right,) = texts_with("of 20 right", outputs)
    assert int(right.split()[0]) >= 12, right
    (off,) = texts_with("off by", outputs)
    error, spread = map(float, re.findall(r"\d+\.\d+", off))
    assert error < 0.6 * spread, off
