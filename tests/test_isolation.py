"""The pure stages run where there is no Ray and no MLflow, and `platform/` does not hide the standard library."""

import platform
import subprocess
import sys

import pytest

import metaray

PURE = [
    "metaray",
    "metaray.data",
    "metaray.episodes.sampler",
    "metaray.experiment.experiment",
    "metaray.training.run_writer",
    "metaray.training.in_process",
    "metaray.training.outer_loop",
    "metaray.training.placement",
    "metaray.training.checks.preflight",
    "metaray.experiment.recipes",
    "metaray.training.recovery",
    "metaray.training.session",
    "metaray.serving.loading",
]

WITHOUT = """
import importlib, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("ray", "mlflow"):
            raise ModuleNotFoundError(f"{name} is not to be imported here")

sys.meta_path.insert(0, Absent())
for name in sys.argv[1:]:
    importlib.import_module(name)
found = {name.partition(".")[0] for name in sys.modules} & {"ray", "mlflow"}
assert not found, found
try:
    import ray
except ModuleNotFoundError:
    print("imported", len(sys.argv) - 1)
"""


def test_pure_stages_import_without_ray_and_mlflow() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT, *PURE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"imported {len(PURE)}\n"


@pytest.mark.parametrize("name", ["metaray", "metaray.episodes.sampler", "metaray.data"])
def test_samplers_need_no_torch(name: str) -> None:
    code = f"import sys, {name}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_front_door_is_light_and_opens_when_it_is_asked() -> None:
    """In seconds of this process alone, whatever else the machine does meanwhile."""
    code = (
        "import sys, time; start = time.process_time(); import metaray; took = time.process_time() - start\n"
        "assert not {'torch', 'numpy', 'pydantic'} & sys.modules.keys() and took < 0.1, took\n"
        "assert {'Learner', 'ImagePreprocessing', 'load_task'} <= set(dir(metaray))\n"
        "from metaray.learners.learner import AdaptedTask, Learner\n"
        "assert (metaray.Learner, metaray.AdaptedTask) == (Learner, AdaptedTask)\n"
        "assert metaray.VectorPreprocessing(size=2) and metaray.ImagePreprocessing(height=2, width=3)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with pytest.raises(AttributeError, match="module 'metaray' has no attribute 'Lerner'"):
        metaray.Lerner  # noqa: B018


def test_the_standard_library_is_not_shadowed() -> None:
    assert platform.system() in ("Linux", "Darwin", "Windows")
    assert not hasattr(platform, "metaray")
