"""More steps of a finished run."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from metaray.api.extend import Extension, extend, plan_extension
from metaray.api.train import Report
from metaray.api.train import train as train_run
from metaray.config import replace
from metaray.errors import InputError, RunStopped
from metaray.experiment.experiment import Evaluation, Experiment, Initial
from metaray.experiment.optimizer import Optimizer
from metaray.records.extension import ended_folder
from metaray.records.judged import JUDGED
from metaray.records.result import RESULT
from metaray.records.run import LEARNER, RECORD_FILE
from tests.training.whole_runs import Memory, StopAfter

MakeExperiment = Callable[..., Experiment]
Train = Callable[..., Report]
Options = dict[str, Any]
ENDED = (RESULT, JUDGED, RECORD_FILE)


@pytest.fixture
def options(database: str, tmp_path: Path) -> Options:
    return {"run": "x", "storage": str(tmp_path / "runs"), "tracking_uri": database, "register": False}


def planned_of(experiment: Experiment, options: Options, steps: int) -> Extension:
    return plan_extension(experiment, steps, run=options.get("run"), storage=options["storage"])


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_nothing_of_the_first_end_is_lost(options: Options, train: Train, make_experiment: MakeExperiment) -> None:
    short = make_experiment(name="lengthened")
    first = train(short, run="x", register=True)
    folder = Path(options["storage"]) / "x"
    before = files(folder)
    report = extend(short, 2, **options, progress=Memory())
    kept = files(folder / ended_folder(6))
    assert kept == {name: data for name, data in before.items() if name in ENDED or LEARNER in name}
    tags = json.loads((folder / RECORD_FILE).read_text())["tags"]
    assert {key: tags[key] for key in tags if key.startswith("extended.")} == {
        "extended.from_run": "x",
        "extended.from_step": "6",
        "extended.from_parameters_sha256": first.result.parameters_sha256,
        "extended.from_tracking_run": first.tracking_run,
    }
    # MLflow keeps the parameters of a run as they are: a new one holds the longer run, all of it.
    assert report.tracked is not None
    client = report.tracked.server.client
    assert report.tracking_run is not None and first.tracking_run is not None
    old, new = (client.get_run(one) for one in (first.tracking_run, report.tracking_run))
    assert (old.data.params["num_steps"], new.data.params["num_steps"]) == ("6", "8")
    assert (old.info.status, new.info.status) == ("FINISHED", "FINISHED")
    assert new.data.tags["extended.from_tracking_run"] == first.tracking_run
    history = client.get_metric_history(report.tracking_run, "val/accuracy")
    assert [metric.step for metric in history] == [2, 4, 6, 8]
    again = extend(short, 2, **options, progress=Memory())
    assert again.result.num_steps == 10


def test_cut_short_it_goes_on_as_the_longer_run(
    options: Options, train: Train, make_experiment: MakeExperiment
) -> None:
    short, whole = make_experiment(), make_experiment(num_steps=12)
    train(short, run="x", register=False)
    with pytest.raises(RunStopped) as stopped:
        extend(short, 6, **options, progress=Memory(), should_stop=StopAfter(3))
    goes_on = "`metaray train RECIPE --run x --set num_steps=12` goes on"
    assert stopped.value.__notes__ == [goes_on]
    with pytest.raises(
        InputError, match=re.escape(f"has not done its 12 steps yet, so there is nothing to extend: {goes_on}")
    ):
        planned_of(short, options, 6)
    report = train(whole, run="x", register=False)
    assert (report.run.name, report.result.num_steps) == ("x", 12)


def test_where_nothing_can_be_trained_it_stays_the_finished_run(
    options: Options, train: Train, make_experiment: MakeExperiment
) -> None:
    short = make_experiment(num_steps=5, evaluation=Evaluation(every=0, val_episodes=2, test_episodes=2))
    result = train(short, run="x", register=False).result
    folder = Path(options["storage"]) / "x"
    before = files(folder)
    nowhere = options | {"tracking_uri": "http://127.0.0.1:9"}
    with pytest.raises(InputError, match=r"127\.0\.0\.1:9"):
        extend(short, 5, **nowhere, progress=Memory())
    now = {name: data for name, data in files(folder).items() if not name.startswith("ended/")}
    changing = ("lock", "log.txt")
    assert {name for name in now | before if now.get(name) != before.get(name)} <= set(changing)
    assert train(short, run="x", register=False).result == result


def test_a_schedule_that_counts_on_the_end_takes_a_new_run(
    options: Options, train: Train, make_experiment: MakeExperiment
) -> None:
    short = make_experiment(optimizer=Optimizer(outer_lr=1e-2, schedule="cosine"))
    first = train(short, run="x", register=False)
    runs = Path(options["storage"])
    before = files(runs / "x")
    planned = planned_of(short, options, 3)
    assert not planned.in_place and not (runs / "x-extended-9").exists()
    memory = Memory()
    with pytest.raises(RunStopped) as stopped:
        extend(short, 3, **options, progress=memory, should_stop=StopAfter(2))
    assert stopped.value.__notes__ == ["the same command goes on"]
    assert "its learning rates depend on how many steps there are (at step 1 it was" in memory.notes()
    assert "so a new run 'x-extended-9' starts from its parameters and optimiser state, counts on from step 6" in (
        memory.notes()
    )
    with pytest.raises(InputError, match=r"\(it starts from run 'x', and goes on as it was made: --extend\)"):
        train(replace(short, num_steps=9), run="x-extended-9", register=False)
    report = extend(short, 3, **options, progress=memory)
    assert (report.run.name, report.result.num_steps) == ("x-extended-9", 9)
    assert extend(short, 3, **options, progress=memory).result == report.result
    assert files(runs / "x") == before
    assert report.tracking_run is not None
    assert report.tracked is not None
    found = report.tracked.server.client.get_run(report.tracking_run).data
    sha256 = first.result.parameters_sha256
    assert (found.params["initial.run"], found.params["initial.step"]) == ("x", "6")
    assert found.params["initial.parameters_sha256"] == found.tags["extended.from_parameters_sha256"] == sha256
    # And once more, from the new run.
    on = planned_of(short, options | {"run": "x-extended-9"}, 2)
    assert on.target.name == "x-extended-9-extended-11" and on.experiment.initial == Initial(
        run="x-extended-9", step=9, parameters_sha256=report.result.parameters_sha256
    )


def test_a_new_run_that_cannot_start_leaves_nothing_behind(
    options: Options, train: Train, make_experiment: MakeExperiment
) -> None:
    short = make_experiment(optimizer=Optimizer(schedule="cosine"))
    train(short, run="x", register=False)
    nowhere = options | {"tracking_uri": "http://127.0.0.1:9"}
    with pytest.raises(InputError, match=r"127\.0\.0\.1:9"):
        extend(short, 5, **nowhere, progress=Memory())
    assert set(files(Path(options["storage"]) / "x-extended-11")) <= {"lock", "log.txt"}


def test_what_cannot_be_extended(options: Options, train: Train, make_experiment: MakeExperiment) -> None:
    experiment = make_experiment()
    with pytest.raises(InputError, match=r"--extend 3: name the finished run .*--run NAME"):
        planned_of(experiment, {"storage": options["storage"]}, 3)
    with pytest.raises(InputError, match=r"--extend 0: give a number of steps, at least 1"):
        planned_of(experiment, options, 0)
    with pytest.raises(InputError, match="unknown run in .*: 'x'"):
        planned_of(experiment, options, 3)
    with pytest.raises(RunStopped):
        train_run(experiment, **options, progress=False, should_stop=StopAfter(2))
    with pytest.raises(InputError, match=r"'x' has not done its 6 steps yet.*`metaray train RECIPE --run x --set num_"):
        planned_of(experiment, options, 3)
    train(experiment, run="x", register=False)
    with pytest.raises(InputError, match=r"exists with another experiment.*\n  seed: 0 -> 1$"):
        planned_of(make_experiment(seed=1), options, 3)
    for checkpoint in (Path(options["storage"]) / "x" / "checkpoints").glob("step-*6"):
        (checkpoint / "state.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match=r"'x' cannot be extended: the checkpoint of step 6.* is not whole: state"):
        planned_of(experiment, options, 3)


def test_the_command(
    trained: Any, make_experiment: MakeExperiment, command: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "x.json").write_text(make_experiment(name="extended", num_steps=2).to_json())
    arguments = ["train", tmp_path / "x.json", "--storage", tmp_path / "runs", "--tracking-uri", trained.uri]
    arguments += ["--no-register"]
    code, _, err = command(*arguments, "--extend", "2")
    assert (code, err) == (2, "error: --extend 2: name the finished run that is to do more steps: --run NAME\n")
    assert command(*arguments, "--run", "x").code == 0
    code, out, err = command(*arguments, "--run", "x", "--extend", "2", "--json")
    assert code == 0, err
    assert json.loads(out)["num_steps"] == 4
    assert err.splitlines()[0].startswith("run 'x' goes on in place, from 2 to 4 steps: the learning rates")
    assert "step 4/4" in err
