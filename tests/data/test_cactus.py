"""Tasks of clusters of unlabelled examples."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metaray.cli import main
from metaray.config import replace
from metaray.data import SOURCES, UMTRA, CACTUs, ClassStore, Glyphs, Source
from metaray.data.cactus import RECIPE_VERSION
from metaray.data.draws import Draws, Split
from metaray.data.many_draws import ManyDraws
from metaray.data.partitions import cluster_store
from metaray.data.preprocessing import VectorPreprocessing
from metaray.data.rows import ROWS
from metaray.data.store_file import write_store
from metaray.data.task import Task, same_examples, stacks_of
from metaray.data.verified import open_store
from metaray.episodes.episode import EpisodeSpec
from metaray.errors import InputError
from metaray.experiment.experiment import Experiment
from metaray.experiment.overrides import override
from metaray.imports import dump_kind, parse_kind
from tests.data.conftest import MakeStore

COUNTS = [12, 15, 13, 14, 16, 14]
SPLITS: dict[Split, list[int]] = {"meta-train": [1, 2, 4], "meta-val": [3], "meta-test": [0, 5]}
"""The classes of meta-train are not the first, nor in a row."""
ROWS_TRAINED = [*range(12, 40), *range(54, 70)]
SPEC = EpisodeSpec(ways=3, shots=2, queries=3)
CLUSTERS, PARTITIONS = 4, 5


def write_vectors(path: Path, raw: Path, vectors: np.ndarray, **origin: str) -> Path:
    meta = open_store(raw).meta
    write_store(
        path,
        examples=vectors.astype(np.float32),
        counts=meta.counts,
        class_names=meta.class_names,
        schemes=meta.schemes,
        preprocessing=VectorPreprocessing(size=vectors.shape[1]),
        origin={"store_fingerprint": meta.fingerprint, **origin},
    )
    return path


@pytest.fixture
def raw(make_store: MakeStore) -> Path:
    """The first pixel of each image is its row."""
    return make_store(COUNTS, SPLITS, size=(8, 8))


@pytest.fixture
def vectors(raw: Path, tmp_path: Path) -> Path:
    """Of each of four kinds of examples, which are not the classes, there are as many."""
    kinds = np.arange(sum(COUNTS)) % CLUSTERS
    found = np.eye(CLUSTERS)[kinds] + 0.02 * np.random.default_rng(0).standard_normal((sum(COUNTS), CLUSTERS))
    return write_vectors(tmp_path / "vectors.arrow", raw, found)


@pytest.fixture
def source(raw: Path, vectors: Path, tmp_path: Path) -> CACTUs:
    out = tmp_path / "partitions.arrow"
    report = cluster_store(str(vectors), out, clusters=CLUSTERS, partitions=PARTITIONS)
    assert (report.examples, len(report.sizes), report.enough(2)) == (44, 20, 1.0)
    return CACTUs(source=ClassStore(path=str(raw)), partitions=str(out))


def sample(source: Source, index: int = 0, split: Split = "meta-train", **spec: Any) -> Task:
    return source.sample_task(Draws(0, split, index), split, replace(SPEC, **spec))


def rows_in(x: np.ndarray) -> list[int]:
    found: list[int] = x[:, 0, 0, 0].astype(int).tolist()
    return found


class TestTasks:
    def test_classes_are_clusters_of_one_partition_and_examples_come_once(self, source: CACTUs) -> None:
        seen = set()
        for index in range(40):
            task = sample(source, index)
            assert task.support.x.shape == (6, 1, 8, 8) and task.query.x.shape == (9, 1, 8, 8)
            assert (
                task.support.y.tolist() == [0, 0, 1, 1, 2, 2] and task.query.y.tolist() == [0] * 3 + [1] * 3 + [2] * 3
            )
            support, query = rows_in(task.support.x), rows_in(task.query.x)
            assert len({*support, *query}) == 15 and {*support, *query} <= set(ROWS_TRAINED)
            numbers = source.places("meta-train", task.class_ids)
            assert len(set(numbers // CLUSTERS)) == 1 and len(set(numbers)) == 3
            seen.add(int(numbers[0]) // CLUSTERS)
            kinds = [
                {row % CLUSTERS for row, y in zip(support + query, ys, strict=True) if y == way}
                for way in range(3)
                for ys in [[*task.support.y, *task.query.y]]
            ]
            assert all(len(kind) == 1 for kind in kinds) and len(set().union(*kinds)) == 3
        assert seen == set(range(PARTITIONS))

    def test_labels_are_never_used(self, make_store: MakeStore, tmp_path: Path) -> None:
        """The same images under other classes give the same tasks."""
        found = []
        for name, counts in (("a", [12, 10, 8]), ("b", [20, 10])):
            raw = make_store(counts, {"meta-train": list(range(len(counts)))}, name=f"{name}.arrow", size=(8, 8))
            made = write_vectors(tmp_path / f"{name}v.arrow", raw, np.random.default_rng(1).standard_normal((30, 3)))
            cluster_store(str(made), tmp_path / f"{name}p.arrow", clusters=4, partitions=3)
            store = ClassStore(path=str(raw))
            found.append(CACTUs(source=store, partitions=str(tmp_path / f"{name}p.arrow")))
        for index in range(20):
            one, other = (sample(each, index, ways=2, shots=1, queries=1) for each in found)
            assert same_examples(one, other) and np.array_equal(one.class_ids, other.class_ids)

    @pytest.mark.parametrize("rotations", [False, True])
    @pytest.mark.parametrize("split", ["meta-train", "meta-val"])
    @pytest.mark.parametrize("spec", [SPEC, replace(SPEC, shots=(1, 2), queries=(1, 3))])
    def test_many_at_once_and_by_rows(self, source: CACTUs, rotations: bool, split: Split, spec: EpisodeSpec) -> None:
        source = replace(source, source=replace(source.source, rotations=rotations))
        spec = spec if split == "meta-train" else replace(spec, ways=2 if rotations else 1)
        alone = [source.sample_task(Draws(0, split, index), split, spec) for index in range(6)]
        together = source.sample_tasks(ManyDraws(0, split, range(6)), split, spec)
        for one, other in zip(stacks_of(alone), together, strict=True):
            assert same_examples(one, other) and np.array_equal(one.class_ids, other.class_ids)
        by_rows = source.sample_rows(ManyDraws(0, split, range(6)), split, spec)
        lasting = source.lasting_examples
        assert lasting is not None
        for one, other in zip(stacks_of(alone), by_rows, strict=True):
            if not rotations:
                assert np.array_equal(lasting[other.support.x[ROWS]], one.support.x)
            assert np.array_equal(other.query.y, one.query.y)

    def test_golden(self, source: CACTUs) -> None:
        """Seeds must keep their tasks."""
        rows = [rows_in(sample(source, index).query.x) for index in range(4)]
        digest = hashlib.sha256(json.dumps(rows).encode()).hexdigest()
        assert (RECIPE_VERSION, digest[:16]) == (1, "94db1ee93481371a")

    @pytest.mark.parametrize("split", ["meta-val", "meta-test"])
    def test_judged_on_the_wrapped_source(self, source: CACTUs, split: Split) -> None:
        spec = EpisodeSpec(ways=2 if split == "meta-test" else 1, shots=1, queries=1)
        for index in range(5):
            ours, theirs = (one.sample_task(Draws(0, split, index), split, spec) for one in (source, source.source))
            assert same_examples(ours, theirs) and np.array_equal(ours.class_ids, theirs.class_ids)
            assert source.class_name(int(ours.class_ids[0])) == source.source.class_name(int(ours.class_ids[0]))
        assert source.num_classes(split) == source.source.num_classes(split)
        assert source.count_tasks(split, spec) == source.source.count_tasks(split, spec)

    def test_names_places_and_counts(self, source: CACTUs) -> None:
        assert source.num_classes("meta-train") == 20
        assert (
            source.class_name(-1) == "cluster 0 of partition 0" and source.class_name(-8) == "cluster 3 of partition 1"
        )
        assert source.count_tasks("meta-train", SPEC) > 10**6
        assert source.num_examples("meta-train") == 44

    def test_of_the_glyphs(self, tmp_path: Path) -> None:
        store = Path(Glyphs().store.path)
        count = len(open_store(store).examples)
        made = write_vectors(tmp_path / "v.arrow", store, np.random.default_rng(0).standard_normal((count, 3)))
        cluster_store(str(made), tmp_path / "p.arrow", clusters=5, partitions=2)
        source = CACTUs(source=Glyphs(rotations=True), partitions=str(tmp_path / "p.arrow"))
        source.check("meta-train", SPEC)
        assert sample(source).support.x.shape == (6, 1, 28, 28)


class TestChecks:
    def test_too_few_clusters_of_enough_examples(self, source: CACTUs) -> None:
        source.check("meta-train", replace(SPEC, ways=4, queries=9))
        with pytest.raises(
            InputError,
            match="5 ways asked for, but of 5 partitions into 4 clusters none has more than 4 clusters with at least 5 "
            "examples .*partitions.arrow.*fewer shots and queries",
        ):
            source.check("meta-train", replace(SPEC, ways=5))
        with pytest.raises(InputError, match="3 ways asked for, .*none has more than 0 clusters with at least 32 exam"):
            sample(source, queries=30)

    def test_more_clusters_than_examples(self, vectors: Path, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="45 clusters asked for, of 44 examples"):
            cluster_store(str(vectors), tmp_path / "p.arrow", clusters=45, partitions=1)
        assert not (tmp_path / "p.arrow").exists()

    def test_partitions_of_something_else(
        self, source: CACTUs, vectors: Path, make_store: MakeStore, tmp_path: Path
    ) -> None:
        other = make_store([8, 8], {"meta-train": [0, 1]}, name="other.arrow", size=(8, 8))
        with pytest.raises(InputError, match=r"its partitions are of the examples of .*but .*other.arrow is"):
            sample(replace(source, source=ClassStore(path=str(other))))
        with pytest.raises(InputError, match="a store, but none of partitions: make them by `metaray data cluster`"):
            sample(replace(source, partitions=str(vectors)))
        with pytest.raises(InputError, match=r"nothing.arrow: no such class store"):
            sample(replace(source, partitions=str(tmp_path / "nothing.arrow")))

    def test_partitions_of_another_split(self, source: CACTUs, raw: Path, tmp_path: Path) -> None:
        file = open_store(raw)
        two = tmp_path / "two.arrow"
        write_store(
            two,
            examples=file.examples,
            counts=file.meta.counts,
            class_names=file.meta.class_names,
            schemes={**file.meta.schemes, "other": {"meta-train": [0, 1, 2], "meta-test": [3]}},
            preprocessing=file.meta.preprocessing,
            origin={},
        )
        made = write_vectors(tmp_path / "v.arrow", two, np.random.default_rng(0).standard_normal((sum(COUNTS), 3)))
        cluster_store(str(made), tmp_path / "p.arrow", clusters=4, partitions=1)
        source = CACTUs(source=ClassStore(path=str(two)), partitions=str(tmp_path / "p.arrow"))
        source.check("meta-train", replace(SPEC, ways=2))
        with pytest.raises(
            InputError, match="of meta-train of split 'default'; of that of 'other' 12 examples are in no"
        ):
            source = replace(source, source=ClassStore(path=str(two), split="other"))
            source.check("meta-train", SPEC)

    def test_what_cannot_be_clustered(self, raw: Path, vectors: Path, tmp_path: Path) -> None:
        out = tmp_path / "p.arrow"
        with pytest.raises(
            InputError, match=r"its examples are uint8 of shape \(1, 8, 8\): send them through an encod"
        ):
            cluster_store(str(raw), out, clusters=2, partitions=1)
        with pytest.raises(InputError, match="unknown split scheme of .*'omniglot'"):
            cluster_store(str(vectors), out, clusters=2, partitions=1, split="omniglot")
        with pytest.raises(InputError, match=r"partitions: at least 1 \(got 0\)"):
            cluster_store(str(vectors), out, clusters=2, partitions=0)
        for seed in (-1, 1 << 64):
            with pytest.raises(InputError, match=rf"seed: from 0 to 2\^63 - 1 \(got {seed}\)"):
                cluster_store(str(vectors), out, clusters=2, partitions=1, seed=seed)
        with pytest.raises(InputError, match="is what the store would be made of"):
            cluster_store(str(vectors), vectors, clusters=2, partitions=1)
        wrong = np.zeros((sum(COUNTS), 2))
        wrong[13, 1] = np.nan
        bad = write_vectors(tmp_path / "bad.arrow", raw, wrong)
        with pytest.raises(InputError, match="example 13 has numbers that are not finite"):
            cluster_store(str(bad), out, clusters=2, partitions=1)

    def test_what_it_cannot_wrap(self, source: CACTUs) -> None:
        with pytest.raises(InputError, match="cactus takes the examples of a class_store or of glyphs, not of umtra"):
            CACTUs.parse({"source": UMTRA(source=Glyphs()), "partitions": "p"}, where="source")
        with pytest.raises(InputError, match=r"unknown source of examples 'umtra'.*Known: class_store, glyphs"):
            CACTUs.parse({"source": {"kind": "umtra"}, "partitions": "p"}, where="source")


class TestDescription:
    def test_fingerprint_covers_source_and_partitions(self, source: CACTUs, vectors: Path, tmp_path: Path) -> None:
        other = tmp_path / "other.arrow"
        cluster_store(str(vectors), other, clusters=CLUSTERS, partitions=PARTITIONS, seed=1)
        changed = [
            replace(source, partitions=str(other)),
            replace(source, source=replace(source.source, rotations=True)),
            source.source,
        ]
        assert len({one.fingerprint for one in [source, *changed]}) == 4
        again = tmp_path / "again.arrow"
        cluster_store(str(vectors), again, clusters=CLUSTERS, partitions=PARTITIONS)
        assert replace(source, partitions=str(again)).fingerprint == source.fingerprint
        assert again.read_bytes() == Path(source.partitions).read_bytes()

    def test_partitions_that_change_are_seen(self, source: CACTUs, vectors: Path) -> None:
        stamp, fingerprint = source.stamp, source.fingerprint
        cluster_store(str(vectors), Path(source.partitions), clusters=3, partitions=1)
        assert source.stamp != stamp and source.fingerprint != fingerprint
        source.verify()

    def test_experiment_and_its_overrides(self, make_experiment: Callable[..., Experiment], source: CACTUs) -> None:
        experiment = make_experiment(source=source)
        assert Experiment.from_json(experiment.to_json()) == experiment
        changed = override(experiment, ["source.partitions=else.arrow", "source.source.path=x.arrow"])
        assert changed.source == CACTUs(source=ClassStore(path="x.arrow"), partitions="else.arrow")
        dumped = dump_kind(source, SOURCES)
        assert dumped["kind"] == "cactus"
        again = parse_kind(json.loads(json.dumps(dumped)), SOURCES, Source, what="source")
        assert again == source and hash(again) == hash(source)


def test_from_the_command_line(raw: Path, vectors: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "p.arrow"
    command = ["data", "cluster", str(vectors), "--out", str(out), "--partitions", "2", "--clusters"]
    main([*command, "4"])
    printed = capsys.readouterr().out
    assert f"wrote {out}: 2 partitions of 44 examples into 4 clusters" in printed
    assert "clusters with so many examples or more: 100 % have 2, 100 % have 6, 100 % have 10, 0 % have 20" in printed
    sample(CACTUs(source=ClassStore(path=str(raw)), partitions=str(out)))
    with pytest.raises(SystemExit, match="2"):
        main([*command, "400"])
    assert "400 clusters asked for, of 44 examples" in capsys.readouterr().err
