"""The keys that `--set` and `--search` take, what they mean, and their values: `train --keys`, `show`."""

import shutil
import sys
import textwrap
from typing import TYPE_CHECKING

from metaray.displays.table import UNLIMITED, one_line

if TYPE_CHECKING:
    from metaray.experiment.experiment import Experiment


def print_keys(experiment: "Experiment") -> None:
    """Print a line `key=value` for each field, as `--set` reads it, after a line `# ...` that says what it means."""
    from metaray.experiment.keys import keys_of

    width = terminal_width()
    for key, value, meaning in keys_of(experiment):
        begin = f"# {key.rpartition('.')[2]}: "
        for line in textwrap.wrap(meaning, width, initial_indent=begin, subsequent_indent="#   "):
            print(one_line(line))
        print(one_line(f"{key}={value}"))


def terminal_width() -> int:
    """Columns of the terminal that standard output is; as good as no limit where it is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else UNLIMITED
