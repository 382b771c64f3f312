"""The libraries that metaray is compared with, in an environment of their own: what `make peers` runs.

    python3.11 jobs/benchmarks/peers/install.py [.venv-peers]

Needs the standard library alone, pip and, for learn2learn, a C compiler. What cannot be had is said and left out; what
there is, and why something is not, is noted in peers.json in the environment's folder.

learn2learn 0.2.0 has no wheel, and its source ships C code that an old Cython made, which no compiler takes on Python
3.11. Its set-up translates its modules anew only for `build_ext`, and only where that C code is not newer: so it is
removed, the extensions are built in place by a Cython of that time, and the package is copied where pip would put it.
"""

import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

LOCK = Path(__file__).resolve().parents[3] / "requirements.lock"
BASE = ("torch", "numpy")
"""As metaray has them, from its lock."""
LEARN2LEARN = "learn2learn==0.2.0"
TOOLS = ("setuptools==80.10.2", "wheel==0.48.0", "cython==0.29.37")
NOTE = "peers.json"


class Environment:
    """A virtual environment.

    Args:
        folder: of it; made anew.
    """

    def __init__(self, folder: Path) -> None:
        self.python = folder.absolute() / "bin" / "python"
        shutil.rmtree(folder, ignore_errors=True)
        ran([sys.executable, "-m", "venv", str(folder)])

    def install(self, *what: str) -> None:
        """By pip, nothing in another version than metaray's lock has it."""
        self.pip("install", "--constraint", str(LOCK), *what)

    def pip(self, *words: str) -> None:
        """A command of pip's."""
        command, *rest = words
        ran([str(self.python), "-m", "pip", command, "--quiet", "--disable-pip-version-check", *rest])

    def version(self, package: str) -> str:
        """Of what is installed, the version that it goes by when it is imported."""
        code = f"import importlib.metadata as m; print(m.version({package!r}))"
        return ran([str(self.python), "-c", code]).strip()

    @property
    def packages(self) -> Path:
        """Where they lie."""
        code = "import sysconfig; print(sysconfig.get_path('platlib'))"
        return Path(ran([str(self.python), "-c", code]).strip())


def ran(command: list[str], folder: Path | None = None) -> str:
    """What a command prints.

    Raises:
        RuntimeError: if it fails, with the end of what it said.
    """
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        said = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        raise RuntimeError(" | ".join(said[-3:])[-400:] or f"exit code {done.returncode}")
    return done.stdout


def learn2learn(environment: Environment) -> str:
    """Build and install it; returns its version."""
    # What of it is compared needs these; the parts for gym, text and torchvision are left aside.
    environment.install(*TOOLS, "requests", "tqdm")
    name, version = LEARN2LEARN.split("==")
    with tempfile.TemporaryDirectory() as scratch:
        apart = ["--no-deps", "--no-build-isolation", "--no-binary", name, "--dest", scratch]
        environment.pip("download", *apart, LEARN2LEARN)
        (archive,) = Path(scratch).glob("*.tar.gz")
        with tarfile.open(archive) as packed:
            packed.extractall(scratch, filter="data")
        source = Path(scratch) / f"{name}-{version}"
        for translated in (source / name / "data").glob("*.c"):
            translated.unlink()
        ran([str(environment.python), "setup.py", "build_ext", "--inplace"], source)
        shutil.copytree(source / name, environment.packages / name)
    return version


def from_wheel(package: str, version: str) -> Callable[[Environment], str]:
    """Installs a package that has a wheel, and returns its version."""

    def install(environment: Environment) -> str:
        environment.install(f"{package}=={version}")
        return environment.version(package)

    return install


PEERS: dict[str, Callable[[Environment], str]] = {
    "learn2learn": learn2learn,
    "higher": from_wheel("higher", "0.2.1"),
    "torchopt": from_wheel("torchopt", "0.7.3"),
    "jax": from_wheel("jax", "0.8.3"),
}


def installed(environment: Environment, peers: dict[str, Callable[[Environment], str]]) -> dict[str, dict[str, str]]:
    """Versions of what there is, and the reasons why something is not."""
    found: dict[str, dict[str, str]] = {"versions": {}, "absent": {}}
    for name, install in peers.items():
        print(f"{name} ...", end=" ", flush=True)
        try:
            found["versions"][name] = install(environment)
        except RuntimeError as error:  # the others can be compared with all the same
            found["absent"][name] = str(error)
            print(f"cannot be had: {error}", flush=True)
        else:
            print(found["versions"][name], flush=True)
    return found


def main(arguments: list[str]) -> int:
    """Make the environment; the exit code."""
    folder = Path(arguments[0] if arguments else ".venv-peers")
    environment = Environment(folder)
    print("torch and numpy, as metaray has them ...", flush=True)
    try:
        environment.install(*BASE)
    except RuntimeError as error:
        print(f"cannot be had, and nothing without them: {error}", file=sys.stderr)
        return 1
    found = installed(environment, PEERS)
    found["versions"] |= {name: environment.version(name) for name in BASE}
    (folder / NOTE).write_text(json.dumps(found, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
