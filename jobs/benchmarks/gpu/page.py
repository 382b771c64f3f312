"""docs/gpu.md, made from the records in docs/gpu/: nothing in it is edited by hand."""

import re
import shutil
from pathlib import Path

from jobs.benchmarks.gpu.record import Record, Value
from jobs.benchmarks.gpu.sections import BUDGETS_S, load
from jobs.benchmarks.gpu.table import tables

HEAD = """# On a GPU

Made by `python -m jobs.benchmarks.gpu` from the records in gpu/, one a kind of card; nothing here is edited by hand.

```
make gpu                          # on a machine with a GPU: into gpu-record/, in under 10 minutes
make gpu-ray                      # Ray on it: NCCL, sampler actors, what is killed on the way; about 3 minutes more
make gpu-pack OMNIGLOT=FILE.arrow # what a bare GPU machine lacks, to carry there: bash gpu-pack/run.sh OUT [--ray]
python -m jobs.benchmarks.gpu --only execution --budget-s 240 # one section
python -m jobs.benchmarks.gpu --device cpu --small            # whether the script itself works, on a CPU
python -m jobs.benchmarks.gpu --table gpu-record/record.json  # a record as tables
python -m jobs.benchmarks.gpu --keep gpu-record/record.json   # keep a record here, and write this page anew
```

Each section is a process of its own that has its time, and each case is put on record before the next begins: whatever
fails or cuts the run off, all that was found before stays. It needs neither Ray, MLflow nor a network.
"""

NOT_RUN = """## Not run yet

No record is kept here: these checks have run on CPUs only, small, as the test suite does. On a GPU they would show:
"""


def page(records: list[tuple[str, Record]]) -> str:
    """The whole page, from records by name; without any, what there would be to see."""
    if not records:
        listed = "\n".join(f"- **{name}** ({most:g} s): {load(name).about}" for name, most in BUDGETS_S.items())
        return f"{HEAD}\n{NOT_RUN}\n{listed}\n"
    return HEAD + "".join(f"\n## {record.machine['device']}\n\n{tables(record, level=3)}" for _, record in records)


def write_page(docs: Path) -> None:
    """Write it from what is kept."""
    kept = [(path.stem, Record(path)) for path in sorted((docs / "gpu").glob("*.json"))]
    (docs / "gpu.md").write_text(page(kept))


def keep(record: Path, docs: Path) -> Path:
    """Keep a record in the place of an earlier one of the same card, and write the page anew; returns where it is."""
    card = slug(Record(record).machine["device"])
    target = docs / "gpu" / f"{card}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(record, target)
    write_page(docs)
    return target


def slug(card: Value) -> str:
    """A file's name for a card."""
    return re.sub(r"[^a-z0-9]+", "-", str(card).lower()).strip("-")
