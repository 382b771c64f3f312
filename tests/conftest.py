"""What the tests of several stages share: a tiny store with classes that can be learned, experiments on it, Ray."""

import dataclasses
import io
import os
import shutil
from collections.abc import Callable, Generator, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest
import torch
from _pytest.nodeid import NodeId
from hypothesis import HealthCheck, settings

from metaray.algorithms import MAML
from metaray.cli import main
from metaray.config import replace
from metaray.data import ClassStore, FunctionFamily
from metaray.data.draws import Split
from metaray.data.preprocessing import ImagePreprocessing
from metaray.data.store_file import write_store
from metaray.episodes.episode import EpisodeSpec
from metaray.episodes.tensors import Examples, TensorEpisode
from metaray.experiment.experiment import Evaluation, Experiment
from metaray.experiment.optimizer import Optimizer
from metaray.models import MLP

if TYPE_CHECKING:
    from metaray.api.train import Report

# --doctest-modules would import each of them under the same name.
collect_ignore_glob = ["conftest.py", "*/conftest.py"]

# How fast an example runs is the machine's affair, not the test's.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

# Of what torch warns once a process would else fail whichever test came first.
torch.set_warn_always(True)

MAY_SKIP = ("no GPU", "no Omniglot", "no git", "this machine lets nobody")
"""How the reasons begin for which tests may be skipped wherever they run: no package mends them."""

SHARED = {"ray": {"ray", "ray_cluster"}, "trained": {"trained"}}
"""Groups of tests that share what is dear to make, once a session, with the marks and fixtures that stand for it."""

CLASSES: dict[Split, int] = {"meta-train": 12, "meta-val": 8, "meta-test": 8}
PER_CLASS = 12
SIDE = 16


def group_of(item: pytest.Item) -> str:
    """What shares the session's Ray cluster is one group, what shares its first run another, every other file its own.

    A group keeps to one process where several test.
    """
    has = {*getattr(item, "fixturenames", ()), *(mark.name for mark in item.iter_markers())}
    return next((name for name, shared in SHARED.items() if shared & has), item.location[0])


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests that need a GPU are skipped where torch sees none; where several processes test, each knows its group.

    pytest-xdist takes the group from the end of a test's ID, where its version 3.8 no longer can write it since pytest
    9.2. The longest group comes first: at the end one process would wait for it alone.
    """
    for item in items:
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="no GPU: torch sees none here"))
    if not getattr(config.option, "loadgroup", False):
        return
    groups = {item: group_of(item) for item in items}
    for item, group in groups.items():
        item._id = NodeId.parse(f"{item.nodeid}@{group}")
    order = [*SHARED]
    items.sort(key=lambda item: order.index(groups[item]) if groups[item] in SHARED else len(order))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Under METARAY_NO_SKIPS, as `make test-slow` sets it, a test that is skipped for want of a package has failed."""
    report = yield
    if os.environ.get("METARAY_NO_SKIPS") and report.skipped and not hasattr(report, "wasxfail"):
        assert isinstance(report.longrepr, tuple)
        reason = report.longrepr[2].removeprefix("Skipped: ")
        if not reason.startswith(MAY_SKIP):
            report.outcome = "failed"
            report.longrepr = f"{item.nodeid} was skipped, but must run here: {reason}"
    return report


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What a user's cache holds is no business of the tests, nor theirs of the user."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("METARAY_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Kernels on one thread, as experiments have it: small tensors gain nothing from more."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """28 classes (12 + 8 + 8) of 12 grey 16x16 images; each class is a coarse pattern under noise."""
    generator = np.random.default_rng(0)
    count = sum(CLASSES.values())
    patterns = generator.integers(0, 2, (count, 1, 4, 4)).repeat(4, axis=2).repeat(4, axis=3) * 160
    noise = generator.integers(0, 96, (count, PER_CLASS, SIDE, SIDE))
    images = (patterns + noise).astype(np.uint8).reshape(-1, 1, SIDE, SIDE)
    ends = np.cumsum(list(CLASSES.values()))
    path = tmp_path_factory.mktemp("store") / "tiny.arrow"
    write_store(
        path,
        examples=images,
        counts=[PER_CLASS] * count,
        class_names=[f"class{i}" for i in range(count)],
        schemes={
            "default": {split: list(range(end - CLASSES[split], end)) for split, end in zip(CLASSES, ends, strict=True)}
        },
        preprocessing=ImagePreprocessing(height=SIDE, width=SIDE),
        origin={"importer": "test"},
    )
    return path


@pytest.fixture(scope="session")
def tiny_source(tiny_store: Path) -> ClassStore:
    """The source over `tiny_store`."""
    return ClassStore(path=str(tiny_store))


@pytest.fixture(scope="session")
def make_experiment(tiny_source: ClassStore) -> Callable[..., Experiment]:
    """A run of well under a second: six MAML steps of an MLP; keyword arguments replace fields."""

    def make(**changes: object) -> Experiment:
        experiment = Experiment(
            name="tiny",
            source=tiny_source,
            episodes=EpisodeSpec(ways=3, shots=1, queries=2),
            model=MLP(hidden=(8,)),
            algorithm=MAML(inner_lr=0.1, batch_norm="transductive"),
            optimizer=Optimizer(outer_lr=1e-2),
            meta_batch_size=4,
            num_steps=6,
            evaluation=Evaluation(every=2, val_episodes=6, test_episodes=8),
        )
        return replace(experiment, **changes)

    return make


@pytest.fixture(scope="session")
def make_waves(make_experiment: Callable[..., Experiment]) -> Callable[..., Experiment]:
    """The same in regression, on sinusoids; keyword arguments replace fields."""

    def make(**changes: object) -> Experiment:
        experiment = make_experiment(
            name="waves",
            source=FunctionFamily(),
            episodes=EpisodeSpec(shots=5, queries=4),
            model=MLP(hidden=(8,), batch_norm=False),
            algorithm=MAML(inner_lr=0.01, inner_steps=2, batch_norm="transductive"),
        )
        return replace(experiment, **changes)

    return make


@pytest.fixture(scope="session")
def make_episode() -> Callable[..., TensorEpisode]:
    """Random episodes straight as tensors; with `size`, a chunk of so many with a leading axis."""

    def make(
        *,
        ways: int = 3,
        shots: int = 2,
        queries: int = 2,
        feature: tuple[int, ...] = (1, 2, 2),
        dtype: torch.dtype = torch.float64,
        size: int | None = None,
        seed: int = 0,
    ) -> TensorEpisode:
        generator = torch.Generator().manual_seed(seed)
        lead = () if size is None else (size,)

        def side(per_class: int) -> Examples:
            y = torch.arange(ways).repeat_interleave(per_class)
            x = torch.randn(*lead, len(y), *feature, generator=generator, dtype=dtype)
            return Examples(x, y.expand(*lead, len(y)).clone())

        classes = torch.arange(ways).expand(*lead, ways).clone()
        return TensorEpisode(side(shots), side(queries), torch.zeros(lead, dtype=torch.int64), classes)

    return make


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """One local cluster for the whole session, joined by whoever asks for it; four declared CPUs, whatever there are.

    Connect with `metaray.distributed.cluster.connect`, which finds it running.
    """
    import ray

    from metaray.distributed.cluster import QUICK_TRAIN, closed_cluster

    os.environ.update(QUICK_TRAIN)
    with closed_cluster() as options:
        ray.init(
            **options,
            num_cpus=4,
            num_gpus=0,
            logging_level="warning",
            runtime_env={"env_vars": {**QUICK_TRAIN, "OMP_NUM_THREADS": "1"}},
        )
    yield
    ray.shutdown()


class Ended(NamedTuple):
    """How a command ended: its exit code and what it printed."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session", autouse=True)
def _no_word_for_slow_machines() -> Iterator[None]:
    """What commands say of phases that last long would stand in front of errors, or not, as the machine is busy."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("metaray.displays.run_display.SILENT_S", 3600.0)
        yield


def metaray_command(*arguments: object) -> Ended:
    """Run `metaray ARGUMENTS` in this process."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with redirect_stdout(out), redirect_stderr(err):
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as stop:
            code = int(stop.code or 0)
    return Ended(code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="session")
def command() -> Callable[..., Ended]:
    """`command("train", path, "--json")` runs the command line in this process."""
    return metaray_command


@pytest.fixture(scope="session")
def make_database(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """`make_database(name)` gives the URI of a new MLflow database: a copy, as to create one takes seconds."""
    from metaray.tracking.server import MlflowServer

    def at(name: str) -> MlflowServer:
        return MlflowServer.of(f"sqlite:///{tmp_path_factory.mktemp(name)}/mlflow.db")

    empty = at("empty")
    empty.prepare()

    def make(name: str) -> str:
        made = at(name)
        shutil.copyfile(empty.uri.removeprefix("sqlite:///"), made.uri.removeprefix("sqlite:///"))
        made.prepare()
        return made.uri

    return make


@pytest.fixture(scope="session")
def database(make_database: Callable[[str], str]) -> str:
    """URI of one MLflow database for all commands."""
    return make_database("tracking")


@dataclass(frozen=True)
class Trained:
    """What `metaray train` did, once: a run called "first" of the experiment "tiny".

    Attributes:
        ended: the command.
        experiment: its JSON file.
        storage: folder of all runs.
        uri: of an MLflow database of its own, so that no other test's "tiny" stands among its versions.
    """

    ended: Ended
    experiment: Path
    storage: Path
    uri: str

    @property
    def arguments(self) -> tuple[str, ...]:
        """Of the command. Six steps do not surpass the nearest neighbour, so the learner is made champion by order."""
        places = ("--storage", str(self.storage), "--tracking-uri", self.uri)
        return ("train", str(self.experiment), "--run", "first", "--promote", *places)


@pytest.fixture(scope="session")
def trained(
    make_experiment: Callable[..., Experiment],
    make_database: Callable[[str], str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Trained:
    """The first run of the session."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "tiny.json").write_text(make_experiment().to_json())
    planned = Trained(Ended(0, "", ""), folder / "tiny.json", folder / "runs", make_database("trained"))
    return dataclasses.replace(planned, ended=metaray_command(*planned.arguments))


@pytest.fixture
def train(database: str, tmp_path: Path) -> "Callable[..., Report]":
    """Runs an experiment in this process; keyword arguments are options."""
    from metaray.api.train import train as train_run

    places: dict[str, Any] = {"storage": str(tmp_path / "runs"), "tracking_uri": database, "progress": False}

    def start(experiment: Experiment, **changes: Any) -> "Report":
        return train_run(experiment, **places | changes)

    return start
