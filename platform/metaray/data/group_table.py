"""Tasks from a table whose rows come in groups: a patient, a user, a shop, an assay is a task."""

import hashlib
from typing import ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator, model_validator

from metaray.data.access import without_access
from metaray.data.draws import Draws, Split
from metaray.data.episode_spec import EpisodeSpec
from metaray.data.many_draws import ManyDraws
from metaray.data.names import counted
from metaray.data.opened_table import OpenedTable, Rows, opened_table
from metaray.data.preprocessing import TablePreprocessing
from metaray.data.remote import held, is_remote, local_path
from metaray.data.servers import shown
from metaray.data.source import Source
from metaray.data.table_sampling import draw_tables, side_by_side, stacks_of_rows
from metaray.data.tables.table_file import TableFile, TableMeta, read_table
from metaray.data.task import Side, Task
from metaray.data.verified import open_verified, stamp_of
from metaray.errors import InputError
from metaray.tasks import Binary, Regression
from metaray.tasks.regression import JudgedBy, TrainedBy


class GroupTable(Source):
    """Tasks from a table whose rows come in groups, such as patients or users: each group is a task.

    Some rows of a group are the support set, others the query set. With K shots the support set has K rows; for binary
    targets K negatives and K positives. The same holds for queries; "rest" takes all other rows. Groups with too few
    rows are left out, and it is an error if none is left.

    If the file says that the rows of a group are ordered (`metaray data import table --order-by`), every support row
    comes before every query row: K + Q rows are drawn, and the first K of them are the support set. With "rest", and
    for binary targets, the support set is the first K rows (of each class), and the query set comes from the rows
    behind them.

    Regression targets are learned as (y - target_mean) / target_std; scores and predictions have the table's own units.
    `metaray data import table` and `metaray data describe` print the mean and standard deviation of meta-train.

    If groups differ more in their level than the rows within a group do, set `centred`: networks then learn differences
    to the mean of the task's support set. target_std is then best the standard deviation within groups, which the same
    commands print.

    Attributes:
        path: Path of the file that `metaray data import table` wrote, or its URI, as for a class store.
        targets: "regression" or "binary", matching the targets in the file.
        target_mean: Number subtracted from regression targets.
        target_std: Number by which regression targets are then divided.
        centred: Whether the mean of the task's support set is also subtracted from regression targets, and added to
            predictions; see `Regression`.
        judged_by: Score of a regression task, as in `Regression`.
        trained_by: Loss of regression targets, as in `Regression`.
    """

    kind: ClassVar[str] = "group_table"
    left_out_of_json: ClassVar[tuple[str, ...]] = ("centred", "judged_by", "trained_by")
    about_targets: ClassVar[tuple[str, ...]] = ("target_mean", "target_std", "centred", "judged_by", "trained_by")

    path: str = Field(min_length=1)
    targets: Literal["regression", "binary"] = "regression"
    target_mean: float = 0.0
    target_std: float = Field(default=1.0, gt=0)
    centred: bool = False
    judged_by: JudgedBy = "mse"
    trained_by: TrainedBy = "mse"

    @field_validator("path")
    @classmethod
    def _known_scheme(cls, path: str) -> str:
        # Experiments are stored with checkpoints, in MLflow and in learners, for others to read.
        return without_access(path) if is_remote(path) else path

    @model_validator(mode="after")
    def _scales_values_alone(self) -> Self:
        if self.targets == "binary" and (self.target_mean, self.target_std) != (0.0, 1.0):
            raise ValueError("target_mean and target_std are of targets that are values; binary ones have none")
        if self.targets == "binary" and self.centred:
            raise ValueError("centred: only targets that are values have a mean to be differences to")
        if self.targets == "binary" and (self.judged_by, self.trained_by) != ("mse", "mse"):
            raise ValueError("judged_by and trained_by are of targets that are values; binary ones have AUROC")
        return self

    @property
    def task(self) -> Regression | Binary:
        """Kind of the tasks: binary, or regression of one value."""
        if self.targets == "binary":
            return Binary()
        return Regression(
            mean=self.target_mean,
            std=self.target_std,
            centred=self.centred,
            judged_by=self.judged_by,
            trained_by=self.trained_by,
        )

    @property
    def preprocessing(self) -> TablePreprocessing:
        """Preprocessing of the table's columns, by their names."""
        return self.meta.preprocessing

    @property
    def meta(self) -> TableMeta:
        """The file's metadata."""
        return self._open().file.meta

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over the file's own fingerprint and the scaling of targets."""
        parts = f"{self.meta.fingerprint}\n{self.targets}\n{self.target_mean!r}\n{self.target_std!r}"
        parts += "\ncentred" if self.centred else ""
        return hashlib.sha256(parts.encode()).hexdigest()

    @property
    def drawn_together(self) -> str:
        """Protocol note, if support rows come before query rows by an ordered column; otherwise an empty text.

        It is also empty if the file is not on this machine to tell.
        """
        try:
            ordered_by = self.meta.ordered_by
        except InputError:  # descriptions are told on any machine; whoever samples says what is wrong
            return ""
        return "" if ordered_by is None else f"support before query by {ordered_by}"

    @property
    def baselines(self) -> tuple[str, ...]:
        """Untrained baselines that are judged beside every score.

        They are those of the task kind, such as a linear fit to the support set or, for regression, its mean; if rows
        name items, also the mean of each item.
        """
        task, items = self.task, self.preprocessing.item is not None
        return (*task.baselines, *task.item_baselines) if items else task.baselines

    @property
    def stamp(self) -> tuple[int, ...]:
        """Size, times and inode of the file; for a fetched file, as they were when this process opened it."""
        if is_remote(self.path):
            return ()
        return stamp_of(local_path(self.path), read_table)

    def verify(self) -> None:
        """Read the whole file and compare it with its fingerprint, even if that was done before.

        Raises:
            InputError: If the file is damaged.
        """
        with held(self.path) as local:
            open_verified(local, read_table, verify=True)

    def check(self, split: Split, spec: EpisodeSpec) -> None:
        """Check that at least one group of `split` has enough rows for every task of `spec`.

        Raises:
            InputError: If no group has enough rows (the message has the numbers), or options of the source do not go
                with the file.
        """
        opened = self._open()
        if opened.file.meta.kind != self.targets:
            kind = opened.file.meta.kind
            raise InputError(f"{shown(self.path)}: its targets are {kind}; set source.targets={kind}")
        if self.centred and opened.file.meta.preprocessing.item is not None:
            raise InputError(
                f"{shown(self.path)}: centred: the means of its items are of whole targets, not of differences to the "
                "support's mean; leave source.centred out, and let R2D2(prior=True) learn what differs from the items"
            )
        if spec.sampling != "plain":
            raise InputError("Meta-Dataset's sampling is of classes, and a task of a table is one group of rows")
        if spec.fixed_ways != 1:
            raise InputError(
                f"{spec.ways_in_words} asked for, but a task of a table is one group of rows: ways must be 1"
            )
        if not len(opened.eligible(split, spec.largest)):
            raise self._none_left(split, spec)

    def left_out(self, split: Split, spec: EpisodeSpec) -> list[str]:
        """Names of the groups of `split` with too few rows for the largest task of `spec`."""
        opened = self._open()
        kept = set(opened.strips[split].groups[opened.eligible(split, spec.largest)].tolist())
        meta = opened.file.meta
        return [meta.groups[group] for group in meta.splits.get(split, ()) if group not in kept]

    def sample_task(self, draws: Draws, split: Split, spec: EpisodeSpec) -> Task:
        """Draw the sizes, then a group among those with enough rows, then its rows without replacement.

        Raises:
            InputError: If no group of `split` has enough rows.
        """
        opened, sizes = self._open(), spec.draw(draws)
        eligible = opened.eligible(split, sizes)
        if not len(eligible):
            self.check(split, spec)
        pools = opened.pools[split][eligible[draws.between(0, len(eligible) - 1)]]
        support, query = opened.drawn(pools, sizes, draws)
        sides = [self._side(opened.file, pools.group, rows) for rows in (support, query)]
        return Task(sides[0], sides[1], class_ids=np.array([pools.group], dtype=np.int64))

    def sample_tasks(self, draws: ManyDraws, split: Split, spec: EpisodeSpec) -> list[Task]:
        """Sample tasks of fixed size, or with "rest", together; others one by one by `sample_task`.

        Raises:
            InputError: If no group of `split` has enough rows.
        """
        opened, sizes = self._open(), spec.largest
        if spec.sampling != "plain" or sizes != spec.smallest:
            return super().sample_tasks(draws, split, spec)
        if not len(opened.eligible(split, sizes)):
            self.check(split, spec)
        if not side_by_side(opened, split, sizes, len(draws)):
            return super().sample_tasks(draws, split, spec)
        drawn = draw_tables(opened, split, sizes, draws)
        support, query = (
            self._side(opened.file, drawn.groups.repeat(counts), rows)
            for rows, counts in ((drawn.support, drawn.support_count), (drawn.query, drawn.query_counts))
        )
        return stacks_of_rows(drawn, support, query)

    def count_tasks(self, split: Split, spec: EpisodeSpec) -> int:
        """Number of pairs of a support and a query set over all groups; for ranges, of the smallest sets."""
        opened, sizes = self._open(), spec.smallest
        return sum(opened.count(opened.pools[split][place], sizes) for place in opened.eligible(split, sizes))

    def group_name(self, class_id: int) -> str:
        """Name of a group, as it is in the file."""
        return self.meta.groups[class_id]

    def _side(self, file: TableFile, group: int | Rows, rows: Rows) -> Side[NDArray[np.float32] | NDArray[np.int64]]:
        y = file.targets(group, rows)
        if self.targets == "binary":
            return Side(file.x[rows], y.astype(np.int64))
        scaled = (y.astype(np.float64) - self.target_mean) / self.target_std
        return Side(file.x[rows], scaled.astype(np.float32)[:, None])

    def _none_left(self, split: Split, spec: EpisodeSpec) -> InputError:
        opened, sizes = self._open(), spec.largest
        pools, meta = opened.pools[split], opened.file.meta
        if not pools:
            return InputError(f"{shown(self.path)}: no group is for {split}; import the table with other --splits")
        queries = "1 more" if sizes.queries is None else f"{sizes.queries} more"
        needed = f"{sizes.shots} for the support and {queries} for the query"
        if meta.kind == "binary":
            most = max(pools, key=lambda one: min(map(len, one.each)))
            had = f"{len(most.each[0])} negatives and {len(most.each[1])} positives"
            needed += ", of each class"
        else:
            most = max(pools, key=lambda one: len(one.each[0]))
            had = counted(len(most.each[0]), "row")
        order = f"; by {meta.ordered_by}, the query must lie behind the support" if meta.ordered_by else ""
        return InputError(
            f"{shown(self.path)}: none of the {counted(len(pools), 'group')} of {split} has enough rows: {needed} are "
            f"asked for, and the largest, {meta.groups[most.group]!r}, has {had}{order}"
        )

    def _open(self) -> OpenedTable:
        return opened_table(self.path, self.stamp)
