"""One side of the comparison: commands of metaray, one after another, in one process that has imported it once.

    python -m jobs.benchmarks.unchanged.side PLAN.json

The plan is a list of `{"name": ..., "arguments": [...]}`. Each command is what the console script runs; what it prints
goes to `logs/NAME.out` and `logs/NAME.err` below the working directory, its exit code to `logs/NAME.code`.
"""

import json
import os
import sys
import time
import traceback
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

LOGS = Path("logs")
STOPPED_BY_SIGNAL = 75
"""Exit code of a command that SIGTERM or Ctrl-C has stopped."""


def starts_ray(arguments: list[str]) -> bool:
    """Whether a command starts a local Ray."""
    return arguments[0] == "tune" or ("--workers" in arguments and arguments[arguments.index("--workers") + 1] != "0")


def among_other_rays() -> None:
    """Let Ray know which cluster is meant, once it runs.

    Old versions ask for its list of actors without an address, and fail where another local Ray is on the machine.
    """
    import ray

    init = ray.init

    def known(*arguments: Any, **options: Any) -> Any:
        found = init(*arguments, **options)
        os.environ["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address
        return found

    ray.init = known


def command(name: str, arguments: list[str]) -> int:
    """Run one command; returns its exit code."""
    from metaray.cli import main  # what [project.scripts] of every version names

    with (
        (LOGS / f"{name}.out").open("w") as out,
        (LOGS / f"{name}.err").open("w") as err,
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        try:
            main(arguments)
            code = 0
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 1
        except Exception:  # noqa: BLE001 - the other commands are run all the same
            traceback.print_exc()
            code = 1
    (LOGS / f"{name}.code").write_text(str(code))
    return code


def main() -> None:
    """Run the plan."""
    import metaray
    from jobs.benchmarks.unchanged.own_code import TREE  # importing it compares metaray's folder with the tree's

    label = os.path.basename(os.getcwd())  # noqa: PTH109, PTH119 - of the side, for whoever watches
    print(f"{label}: metaray of {os.environ[TREE]} ({metaray.__file__})", file=sys.stderr, flush=True)
    LOGS.mkdir(exist_ok=True)
    plan = json.loads(Path(sys.argv[1]).read_text())
    if any(starts_ray(step["arguments"]) for step in plan):
        among_other_rays()
    for step in plan:
        started = time.perf_counter()
        code = command(step["name"], step["arguments"])
        took_s = time.perf_counter() - started
        print(f"{label}: {step['name']}, exit code {code}, {took_s:.1f} s", file=sys.stderr, flush=True)
        if code == STOPPED_BY_SIGNAL:
            sys.exit(code)  # whoever stops this process means all of it


if __name__ == "__main__":
    main()
