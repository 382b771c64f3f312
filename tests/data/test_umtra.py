"""Tasks of unlabelled examples."""

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from math import comb
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from metaray.config import replace
from metaray.data import SOURCES, UMTRA, ClassStore, Glyphs, Source
from metaray.data.draws import Draws, Split
from metaray.data.preprocessing import VectorPreprocessing
from metaray.data.task import Task, same_examples
from metaray.data.umtra import RECIPE_VERSION
from metaray.distributed.samplers import Sampler
from metaray.episodes.episode import EpisodeSpec
from metaray.errors import InputError
from metaray.experiment.experiment import Experiment
from metaray.experiment.overrides import override
from metaray.imports import dump_kind, parse_kind
from tests.data.conftest import MakeStore

COUNTS = [2, 5, 3, 4, 6, 4]
# The classes of meta-train are not the first, nor in a row.
SPLITS = {"meta-train": [1, 2, 4], "meta-val": [3], "meta-test": [0, 5]}
ROWS = [*range(2, 10), *range(14, 20)]
SPEC = {"ways": 4, "shots": 2, "queries": 3}


@pytest.fixture
def store(make_store: MakeStore) -> ClassStore:
    return ClassStore(path=str(make_store(COUNTS, SPLITS, size=(8, 8))))


def sample(source: Source, index: int = 0, split: Any = "meta-train", seed: int = 0, **spec: int) -> Task:
    return source.sample_task(Draws(seed, split, index), split, **(SPEC | spec))


def same(a: Task, b: Task) -> bool:
    return same_examples(a, b) and np.array_equal(a.class_ids, b.class_ids)


class TestDrawExamples:
    @pytest.mark.parametrize("rotations", [False, True])
    def test_all_of_them_are_the_examples_of_the_split(self, store: ClassStore, rotations: bool) -> None:
        store = replace(store, rotations=rotations)
        turns = 4 if rotations else 1
        assert store.num_examples("meta-train") == 14 * turns and store.num_examples("meta-val") == 4 * turns
        x, places = store.draw_examples(Draws(0, "meta-train", 0), "meta-train", 14 * turns)
        assert sorted(places.tolist()) == list(range(14 * turns))
        every = [store.examples(int(c)) for c in store.class_ids("meta-train")]
        assert sorted(image.tobytes() for image in x) == sorted(i.tobytes() for images in every for i in images)

    def test_places_name_the_rows(self, store: ClassStore) -> None:
        x, places = store.draw_examples(Draws(3, "meta-train", 0), "meta-train", 9)
        assert [ROWS[place] for place in places] == x[:, 0, 0, 0].astype(int).tolist()
        assert x.flags.c_contiguous and x.flags.writeable

    def test_each_is_as_likely(self, store: ClassStore) -> None:
        times = np.zeros(14)
        for index in range(1400):
            times[store.draw_examples(Draws(0, "meta-train", index), "meta-train", 2)[1]] += 1
        # 200 expected of each, with a standard deviation of 13.
        assert times.min() > 150 and times.max() < 250

    def test_glyphs_have_them_too(self) -> None:
        glyphs = Glyphs()
        ours, theirs = (s.draw_examples(Draws(0, "meta-train", 0), "meta-train", 5) for s in (glyphs, glyphs.store))
        assert np.array_equal(ours[0], theirs[0]) and np.array_equal(ours[1], theirs[1])
        assert glyphs.num_examples("meta-train") == glyphs.store.num_examples("meta-train")

    def test_other_sources_say_who_has(self) -> None:
        asked: list[Callable[[UMTRA], Any]] = [
            lambda s: s.num_examples("meta-train"),
            lambda s: s.draw_examples(Draws(0, "meta-train", 0), "meta-train", 1),
        ]
        for ask in asked:
            with pytest.raises(InputError, match="umtra has no examples to draw one by one, as class_store and glyphs"):
                ask(UMTRA(source=Glyphs()))


class TestTasks:
    def test_support_is_the_examples_themselves_and_shapes_fit(self, store: ClassStore) -> None:
        source = UMTRA(source=store, max_shift=2)
        for index in range(20):
            task = sample(source, index)
            assert task.support.x.shape == (8, 1, 8, 8) and task.query.x.shape == (12, 1, 8, 8)
            assert task.support.y.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
            assert task.query.y.tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3
            rows = [ROWS[place] for place in source.places("meta-train", task.class_ids)]
            assert len(set(rows)) == 4 and task.support.x[::2, 0, 0, 0].astype(int).tolist() == rows
            for x in (task.support.x, task.query.x):
                assert x.dtype == np.uint8 and x.flags.c_contiguous and x.flags.writeable

    @given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.integers(1, 14), st.integers(1, 4))
    @settings(max_examples=40)
    def test_pure_and_without_replacement(self, tiny_store: Path, seed: int, index: int, ways: int, shots: int) -> None:
        source = UMTRA(source=ClassStore(path=str(tiny_store)), max_turn_degrees=15, max_scaling=0.2, flip=True)
        other = UMTRA.parse(source.model_dump(mode="json"), where="source")
        sample(other, index=1)
        spec = {"ways": ways, "shots": shots, "queries": 2}
        first, again = (sample(s, index, seed=seed, **spec) for s in (source, other))
        assert same(first, again)
        places = source.places("meta-train", first.class_ids)
        assert len(set(places.tolist())) == ways and 0 <= places.min() <= places.max() < 144

    def test_labels_are_never_used(self, make_store: MakeStore) -> None:
        """The same images under other classes give the same tasks."""
        stores = [
            make_store([2, 5, 3, 4], {"meta-train": [0, 1, 2], "meta-test": [3]}, name="a.arrow", size=(8, 8)),
            make_store([9, 1, 4], {"meta-train": [0, 1], "meta-test": [2]}, name="b.arrow", size=(8, 8)),
        ]
        sources = [UMTRA(source=ClassStore(path=str(path)), max_shift=2) for path in stores]
        for index in range(20):
            assert same(*(sample(source, index) for source in sources))

    def test_two_ways_may_be_of_one_class(self, make_store: MakeStore) -> None:
        store = ClassStore(path=str(make_store([9], {"meta-train": [0]}, size=(8, 8))))
        UMTRA(source=store).check("meta-train", **SPEC)
        assert len(set(sample(UMTRA(source=store)).class_ids.tolist())) == 4

    @pytest.mark.parametrize("split", ["meta-val", "meta-test"])
    def test_judged_on_the_wrapped_source(self, store: ClassStore, split: Split) -> None:
        source, spec = UMTRA(source=store), {"ways": 1, "shots": 1, "queries": 1}
        for index in range(5):
            ours, theirs = (sample(s, index, split, **spec) for s in (source, store))
            assert same(ours, theirs)
            assert np.array_equal(source.places(split, ours.class_ids), store.places(split, ours.class_ids))
            assert source.class_name(int(ours.class_ids[0])) == store.class_name(int(ours.class_ids[0]))
        assert source.num_classes(split) == store.num_classes(split)
        assert source.count_tasks(split, **spec) == store.count_tasks(split, **spec)
        with pytest.raises(InputError, match=rf"9 ways asked for, but {split} has . class"):
            source.check(split, ways=9, shots=1, queries=1)

    def test_counts_names_and_places(self, store: ClassStore) -> None:
        source = UMTRA(source=replace(store, rotations=True))
        assert source.num_classes("meta-train") == 56
        assert source.count_tasks("meta-train", **SPEC) == comb(56, 4)
        ids = sample(source, ways=56).class_ids
        assert sorted(source.places("meta-train", ids).tolist()) == list(range(56))
        assert source.class_name(-1) == "example 0" and source.class_name(-56) == "example 55"
        assert source.feature_shape == (1, 8, 8) and source.preprocessing == store.preprocessing

    def test_bits_do_not_depend_on_the_process_which_needs_no_torch(self, store: ClassStore) -> None:
        source = UMTRA(source=store, max_shift=2, max_turn_degrees=20, max_scaling=0.2, flip=True, max_brightness=0.3)
        here = b"".join(sample(source, index).query.x.tobytes() for index in range(3)).hex()
        code = (
            "import json, sys\n"
            "from metaray.data import SOURCES, Source\n"
            "from metaray.data.draws import Draws\n"
            "from metaray.imports import parse_kind\n"
            "source = parse_kind(json.loads(sys.argv[1]), SOURCES, Source, what='source')\n"
            "tasks = [source.sample_task(Draws(0, 'meta-train', i), 'meta-train', ways=4, shots=2, queries=3)\n"
            "         for i in range(3)]\n"
            "assert 'torch' not in sys.modules\n"
            "print(b''.join(task.query.x.tobytes() for task in tasks).hex())"
        )
        arguments = [sys.executable, "-c", code, json.dumps(dump_kind(source, SOURCES))]
        done = subprocess.run(arguments, capture_output=True, text=True, check=False)
        assert done.stdout.strip() == here, done.stderr

    def test_golden(self) -> None:
        """Seeds must keep their tasks."""
        source = UMTRA(source=Glyphs(), max_turn_degrees=20, max_scaling=0.2, flip=True, max_brightness=0.3)
        images = np.arange(4 * 3 * 9 * 7, dtype=np.uint32).reshape(4, 3, 9, 7).astype(np.uint8)
        digest = hashlib.sha256(source.altered(images, Draws(1, "meta-train", 2)).tobytes()).hexdigest()
        assert (RECIPE_VERSION, digest[:16]) == (1, "f325f163fcbf2628")

    def test_a_sampler_rebuilds_it_from_its_description(self, store: ClassStore) -> None:
        source = UMTRA(source=store, max_shift=2)
        spec = {"ways": 4, "shots": 2, "queries": 3}
        sampler = Sampler(dump_kind(source, SOURCES), source.fingerprint, spec, seed=0)
        batch = sampler.sample(5, 7)
        draws = Draws(0, "meta-train", 5)
        draws.raw(1)  # the episode's own seed
        assert np.array_equal(batch.stacks[0].task.query.x[0], source.sample_task(draws, "meta-train", **spec).query.x)


class TestChecks:
    def test_more_ways_than_examples(self, store: ClassStore) -> None:
        UMTRA(source=store).check("meta-train", ways=14, shots=1, queries=1)
        with pytest.raises(InputError, match="15 ways asked for, but meta-train has 14 examples, of which each is a"):
            UMTRA(source=store).check("meta-train", ways=15, shots=1, queries=1)
        with pytest.raises(InputError, match="15 examples asked for, but meta-train has 14 examples"):
            sample(UMTRA(source=store), ways=15)

    def test_a_shift_out_of_sight(self, store: ClassStore) -> None:
        with pytest.raises(InputError, match="max_shift of 8 pixels moves 8x8 images out of sight"):
            UMTRA(source=store, max_shift=8).check("meta-train", **SPEC)

    def test_copies_that_are_not_altered(self, store: ClassStore) -> None:
        with pytest.raises(InputError, match="all augmentations are off, so queries equal the support: raise"):
            UMTRA.parse({"source": store, "max_shift": 0, "zero_share": 0}, where="source")

    def test_what_is_no_image(self) -> None:
        with pytest.raises(InputError, match=r"umtra alters images, but vectors has examples of shape \(3,\)"):
            UMTRA(source=Vectors()).check("meta-train", **SPEC)

    def test_sources_that_it_cannot_wrap(self) -> None:
        with pytest.raises(InputError, match="vectors yields regression tasks; umtra makes classes of images"):
            UMTRA.parse({"source": Vectors(target=1)}, where="source")
        with pytest.raises(InputError, match="umtra has no examples to draw one by one, as class_store and"):
            UMTRA.parse({"source": UMTRA(source=Glyphs())}, where="source")
        with pytest.raises(InputError, match=r"unknown source of examples 'umtra'.*Known: class_store, glyphs"):
            UMTRA.parse({"source": {"kind": "umtra"}}, where="source")
        with pytest.raises(InputError, match="source is missing"):
            UMTRA.parse({}, where="source")

    @pytest.mark.parametrize(
        ("field", "value"),
        [("max_shift", -1), ("zero_share", 1.0), ("max_turn_degrees", 90), ("max_scaling", 1), ("max_brightness", 2)],
    )
    def test_settings_out_of_range(self, field: str, value: float | int) -> None:
        with pytest.raises(InputError, match=rf"{field}: .*\(got {value}\)"):
            UMTRA.parse({"source": {"kind": "glyphs"}, field: value}, where="source")


class Vectors(Source):
    """Examples that are no images."""

    kind: ClassVar[str] = "vectors"
    preprocessing: ClassVar[Any] = VectorPreprocessing(size=3)
    feature_shape: ClassVar[Any] = (3,)
    fingerprint: ClassVar[Any] = "vectors"
    check: ClassVar[Any] = None
    sample_task: ClassVar[Any] = None
    count_tasks: ClassVar[Any] = None
    num_classes: ClassVar[Any] = None
    places: ClassVar[Any] = None
    class_name: ClassVar[Any] = None

    target: int | None = None

    @property
    def target_size(self) -> int | None:
        return self.target

    def num_examples(self, split: Split) -> int:
        return 100

    def draw_examples(self, draws: Draws, split: Split, count: int) -> tuple[NDArray[Any], NDArray[Any]]:
        return np.zeros((count, 3)), np.arange(count)


class TestDescription:
    def test_fingerprint_covers_source_settings_and_kind(self, store: ClassStore) -> None:
        source = UMTRA(source=store)
        others = [
            replace(source, max_shift=5),
            replace(source, zero_share=0.25),
            replace(source, flip=True),
            replace(source, source=replace(store, rotations=True)),
            store,
        ]
        prints = {s.fingerprint for s in [source, *others]}
        assert len(prints) == 6 and UMTRA(source=store).fingerprint in prints

    def test_round_trip(self, store: ClassStore) -> None:
        source = UMTRA(source=replace(store, rotations=True), max_shift=3)
        dumped = dump_kind(source, SOURCES)
        assert dumped["kind"] == "umtra" and dumped["source"]["kind"] == "class_store"
        again = parse_kind(json.loads(json.dumps(dumped)), SOURCES, Source, what="source")
        assert again == source and hash(again) == hash(source)

    def test_experiment_and_its_overrides(
        self, make_experiment: Callable[..., Experiment], tiny_source: ClassStore
    ) -> None:
        experiment = make_experiment(source=UMTRA(source=tiny_source))
        assert Experiment.from_json(experiment.to_json()) == experiment
        changed = override(experiment, ["source.max_shift=4", "source.source.path=else.arrow"])
        assert changed.source == UMTRA(source=ClassStore(path="else.arrow"), max_shift=4)
        assert override(experiment, ["source.source.kind=glyphs"]).source == UMTRA(source=Glyphs())
        turned = ["source.source.kind=glyphs", "source.source.rotations=true"]
        assert override(experiment, turned).source == UMTRA(source=Glyphs(rotations=True))
        wrapped = ["source.kind=umtra", "source.source.kind=class_store", "source.source.path=x", "source.max_shift=1"]
        assert override(make_experiment(), wrapped).source == UMTRA(source=ClassStore(path="x"), max_shift=1)
        with pytest.raises(InputError, match="unknown key 'source.source.pth'.*Did you mean 'source.source.path'"):
            override(experiment, ["source.source.pth=x"])
        with pytest.raises(InputError, match="unknown source of examples 'glyph'. Did you mean 'glyphs'"):
            override(experiment, ["source.source.kind=glyph"])

    def test_an_import_path_inside_needs_trust(
        self, make_experiment: Callable[..., Experiment], tiny_source: ClassStore
    ) -> None:
        source = UMTRA(source=Vectors())
        kind = f"{__name__}:Vectors"
        assert dump_kind(source, SOURCES)["source"]["kind"] == kind
        dumped = {**dump_kind(source, SOURCES)}
        assert parse_kind(dumped, SOURCES, Source, what="source", trust=(__name__.partition(".")[0],)) == source
        with pytest.raises(InputError, match=f"refusing to import '{kind}'"):
            parse_kind(dumped, SOURCES, Source, what="source", trust=())
        tree = json.loads(make_experiment(source=UMTRA(source=tiny_source)).to_json())
        tree["source"]["source"] = {"kind": "os:system"}
        with pytest.raises(InputError, match="refusing to import 'os:system'"):
            Experiment.from_json(json.dumps(tree), trust=())


def test_an_episode_spec_of_one_shot_has_only_originals(store: ClassStore) -> None:
    spec = EpisodeSpec(ways=3, shots=1, queries=1)
    task = sample(UMTRA(source=store), ways=spec.ways, shots=spec.shots, queries=spec.queries)
    originals = {store.examples(int(c))[i].tobytes() for c in (1, 2, 4) for i in range(COUNTS[int(c)])}
    assert {image.tobytes() for image in task.support.x} <= originals
