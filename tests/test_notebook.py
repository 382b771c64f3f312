"""docs/first_steps.ipynb, run by Jupyter's own kernel where nothing but the wheel is installed."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.patience import PATIENT_S
from tests.wheel import ROOT, built

NOTEBOOK = ROOT / "docs" / "first_steps.ipynb"


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


@pytest.mark.slow
def test_from_the_wheel_to_a_learner_that_adapts(tmp_path: Path) -> None:
    pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    import nbformat
    from nbclient import NotebookClient

    python = installed(built(tmp_path), tmp_path / "venv")
    kernel = tmp_path / "share" / "jupyter" / "kernels" / "wheel"
    subprocess.run(
        [str(python), "-m", "ipykernel", "install", "--prefix", str(tmp_path), "--name", "wheel"],
        check=True,
        capture_output=True,
        timeout=PATIENT_S,
    )
    assert kernel.is_dir()
    work = tmp_path / "work"
    work.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_PATH", str(tmp_path / "share" / "jupyter"))
        patch.setenv("PATH", str(python.parent), prepend=os.pathsep)
        patch.delenv("PYTHONPATH", raising=False)
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        book = nbformat.read(str(NOTEBOOK), as_version=4)
        client = NotebookClient(
            book, timeout=PATIENT_S, kernel_name="wheel", resources={"metadata": {"path": str(work)}}
        )
        client.execute()
    outputs = [output for cell in book.cells if cell.cell_type == "code" for output in cell.outputs]
    shown = [output.data for output in outputs if "data" in output]
    assert any("<pre>protocol: 5-way 1-shot" in data.get("text/html", "") for data in shown), "the report shows itself"
    (right,) = [data["text/plain"] for data in shown if "of 15 right" in data.get("text/plain", "")]
    assert int(right.strip("'").split()[0]) >= 9, right
    assert (work / "my-task").is_dir() and (work / "mlflow.db").is_file()
    assert not [output for output in outputs if output.output_type == "error"]
