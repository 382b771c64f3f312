"""Everything that a user can get wrong: one clear message, exit code 2, before training, and nothing half-written."""

import json
import sqlite3
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from metaray.data.preprocessing import ImagePreprocessing
from metaray.data.store_file import METADATA_KEY, write_store
from metaray.errors import InputError

Command = Callable[..., Any]
Refused = Callable[..., str]
Train = Callable[..., str]

RECIPE = """
import metaray.models
from pathlib import Path
from pydantic import BaseModel
from metaray.algorithms import MAML, ProtoNet
from metaray.data import ClassStore
from metaray.episodes.episode import EpisodeSpec
from metaray.errors import InputError
from metaray.models import MLP
from metaray.experiment.experiment import Evaluation, Experiment
from metaray.experiment.optimizer import Optimizer
from metaray.config import replace

def good(**changes):
    return Experiment(name="bad", source=ClassStore(path="STORE"), episodes=EpisodeSpec(ways=3, shots=1, queries=2),
        model=MLP(hidden=(4,)), algorithm=MAML(inner_lr=0.1), meta_batch_size=2, num_steps=2, **changes)

def raises():
    raise InputError("set DATA to a folder, not to 'nowhere'")

def out_of_range():
    return replace(good(), algorithm=MAML(inner_lr=-0.5))

def misspelt():
    return replace(good(), optimizer=Optimizer(outer_lrr=0.1))

def nested():
    return good(evaluation={"evrey": 5})

def unknown_kind():
    return good(optimizer={"kind": "admm"})

def unknown_field():
    return replace(good(), num_step=3)

def nothing():
    return None

def needs(ways, shots=1):
    return good()

class Other(BaseModel):
    size: int

def foreign():
    return Other(size="big")
"""

NETWORKS = """
from torch import nn

class Flat(nn.Module):
    def __init__(self, feature_shape, outputs, extra=0):
        super().__init__()
        self.linear = nn.Linear(256, 7)

    def forward(self, x):
        return self.linear(x.flatten(1))

class Tall(Flat):
    def forward(self, x):
        return self.linear(x.flatten(1))[..., None]

class Narrow(Flat):
    def forward(self, x):
        return self.linear(x)

def number(feature_shape, outputs):
    return 3
"""


@pytest.fixture
def place(tmp_path: Path, tiny_store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a recipe file and a package of networks."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes.py").write_text(RECIPE.replace("STORE", str(tiny_store)))
    (tmp_path / "bad_input_networks.py").write_text(NETWORKS)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@pytest.fixture
def refused(place: Path, command: Command, database: str) -> Iterator[Refused]:
    """Runs a command that must be refused, and gives its message."""

    def counts() -> tuple[int, ...]:
        with sqlite3.connect(database.removeprefix("sqlite:///")) as connection:
            tables = ("runs", "experiments", "model_versions", "registered_models", "registered_model_aliases")
            found = tuple(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables)
        connection.close()
        return found

    def files() -> set[Path]:
        return {path for path in place.rglob("*") if "__pycache__" not in path.parts} - {place / "runs"}

    def refused(*arguments: object) -> str:
        before = counts(), files()
        code, out, err = command(*arguments)
        assert (code, out) == (2, ""), err
        # What was found and what is waited for may be told before.
        told, found, err = err.partition("error: ")
        assert found
        assert told.endswith("\n") or not told
        assert "error: " not in err
        assert "Traceback" not in told
        assert "Traceback" not in err
        assert (counts(), files()) == before
        return str(err).rstrip("\n")

    yield refused
    for name in ("bad_input_networks", "recipes"):
        sys.modules.pop(name, None)


@pytest.fixture
def refused_train(refused: Refused, database: str) -> Train:
    """The same for `metaray train` of the good recipe with settings and options."""

    def train(*settings: str, recipe: str = "recipes.py:good", options: tuple[object, ...] = ()) -> str:
        pairs = [part for setting in settings for part in ("--set", setting)]
        places = () if "--tracking-uri" in options else ("--tracking-uri", database)
        return refused("train", recipe, *pairs, *places, *options)

    return train


def store(path: Path, splits: dict[str, list[int]], counts: list[int]) -> Path:
    images = np.zeros((sum(counts), 1, 16, 16), np.uint8)
    write_store(
        path,
        examples=images,
        counts=counts,
        class_names=[f"class{i}" for i in range(len(counts))],
        schemes={"default": splits},  # type: ignore[dict-item]
        preprocessing=ImagePreprocessing(height=16, width=16),
        origin={},
    )
    return path


# Recipes and experiments


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        ("recipe.py:good", ["no file 'recipe.py' here", "Did you mean 'recipes.py'?"]),
        ("no/such.py:good", ["no file 'no/such.py' here"]),
        ("recipes.py:goood", ["unknown recipe in recipes.py 'goood'. Did you mean 'good'?"]),
        ("recipes.py", ["recipe 'recipes.py'", "write it as path/to/file.py:function"]),
        ("good", ["recipe 'good'", "write it as path/to/file.py:function"]),
        ("recipes.py:raises", ["set DATA to a folder, not to 'nowhere'"]),
        ("recipes.py:out_of_range", ["recipe 'recipes.py:out_of_range': MAML: inner_lr", ">= 0|equal to 0", "-0.5"]),
        ("recipes.py:misspelt", ["Optimizer: unknown key 'outer_lrr'. Did you mean 'outer_lr'?"]),
        ("recipes.py:nested", ["unknown key 'evaluation.evrey'. Did you mean 'evaluation.every'?"]),
        ("recipes.py:unknown_kind", ["unknown optimizer 'admm'. Did you mean 'adam'?"]),
        ("recipes.py:unknown_field", ["unknown key 'num_step'. Did you mean 'num_steps'?"]),
        ("recipes.py:nothing", ["returned NoneType, not an Experiment"]),
        ("recipes.py:needs", ["called without arguments, but it needs ways"]),
        ("recipes.py:foreign", ["recipe 'recipes.py:foreign': Other: size", "'big'"]),
        ("none.json", ["recipe 'none.json': no file 'none.json' here"]),
    ],
)
def test_recipes(refused_train: Train, recipe: str, expected: list[str]) -> None:
    message = refused_train(recipe=recipe)
    for text in expected:
        assert any(choice in message for choice in text.split("|")), message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("def good(:\n", "invalid syntax"),
        ("from metaray.algorithms import MALM\n", "unknown name in metaray.algorithms 'MALM'. Did you mean 'MAML'?"),
        ("import metaray_of_someone\n", "No module named 'metaray_of_someone'"),
        ("from metaray.algorithms import MAML\nbase = MAML(inner_steps=-1)\n", "MAML: inner_steps"),
    ],
)
def test_recipe_files_that_cannot_be_loaded(refused_train: Train, place: Path, source: str, expected: str) -> None:
    (place / "other.py").write_text(source)
    message = refused_train(recipe="other.py:good")
    assert "other.py" in message
    assert expected in message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{", "x.json: not JSON: Expecting property name"),
        ("[1]", "x.json: must be a JSON object with the fields of Experiment (got [1])"),
        ("{}", "x.json: name is missing; source is missing"),
        ('{"name": "x", "sorce": 1}', "unknown key 'sorce'. Did you mean 'source'?"),
    ],
)
def test_experiment_files(refused_train: Train, place: Path, text: str, expected: str) -> None:
    (place / "x.json").write_text(text)
    assert expected in refused_train(recipe="x.json")


def test_an_experiment_file_that_is_no_text(refused_train: Train, place: Path) -> None:
    (place / "x.json").write_bytes(b"\xff\xfe\x00")
    assert "x.json: not a text file" in refused_train(recipe="x.json")


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("algorithm.inner_lrr=1", "unknown key 'algorithm.inner_lrr'. Did you mean 'algorithm.inner_lr'?"),
        ("algoritm.inner_lr=1", "unknown key 'algoritm.inner_lr'. Did you mean 'algorithm'?"),
        ("num_stepz=1", "unknown key 'num_stepz'. Did you mean 'num_steps'?"),
        ("num_steps", "--set 'num_steps': write it as dotted.key=value"),
        ("=3", "--set '=3': write it as dotted.key=value"),
        ("num_steps.x=3", "key 'num_steps.x': num_steps is a value, not a group"),
        ("algorithm.kind=mamml", "unknown algorithm 'mamml'. Did you mean 'maml'?"),
        ("model.kind=conv", "unknown model 'conv'. Did you mean 'conv4'?"),
        ("source.kind=clas_store", "unknown source 'clas_store'. Did you mean 'class_store'?"),
        (
            "source=glyphs",
            "source must be an object with a 'kind', one of cactus, class_store, function_family, glyphs, group_table, "
            "umtra (got 'glyphs')",
        ),
        ("optimizer.kind=adamm", "unknown optimizer 'adamm'. Did you mean 'adam'? Known: adam, adamw, custom, sgd"),
        ("optimizer.schedule=cosin", "optimizer adam: schedule: unknown schedule 'cosin'. Did you mean 'cosine'?"),
        ("precision.dtype=bf16", "precision.dtype: unknown value 'bf16'. Did you mean 'bfloat16'?"),
        ("algorithm.batch_norm=running", "batch_norm: unknown value 'running'"),
        ("optimizer.outer_lr=0", "optimizer adam: outer_lr: Input should be greater than 0 (got 0)"),
        ("optimizer.outer_lr=NaN", "optimizer adam: outer_lr: Input should be a finite number (got nan)"),
        ("algorithm.inner_lr=-1", "inner_lr: Input should be greater than or equal to 0 (got -1)"),
        ("algorithm.inner_lr=fast", "inner_lr: Input should be a valid number"),
        ("algorithm.inner_steps=-2", "inner_steps: Input should be greater than or equal to 0 (got -2)"),
        (
            "episodes.ways=1",
            "class_store yields classification tasks, and these have at least 2 ways (got 1)",
        ),
        ("episodes.shots=0", "episodes.shots: Input should be greater than or equal to 1 (got 0)"),
        ("meta_batch_size=0", "meta_batch_size: Input should be greater than 0 (got 0)"),
        ("num_steps=-5", "num_steps: Input should be greater than or equal to 0 (got -5)"),
        ("num_steps=2.5", "num_steps: Input should be a valid integer, got a number with a fractional part (got 2.5)"),
        ("seed=-1", "seed: Input should be greater than or equal to 0 (got -1)"),
        ("evaluation.test_episodes=1", "evaluation.test_episodes: Input should be greater than or equal to 2 (got 1)"),
        (
            "name=a/b",
            "name: experiment name 'a/b': use letters, digits, '.', '_' and '-', without accents",
        ),
        ("name=a:b c", "of them; for instance 'a-b-c'"),
        ('algorithm.inner_lr={"haed.*": 1, "*": 0.1}', "inner_lr pattern 'haed.*' fits no parameter"),
        ('algorithm.inner_lr={"head.*": 1}', "no inner_lr pattern fits parameter 'body."),
        ('algorithm.inner_lr={"steps": [0, 5], "values": [1]}', "2 steps for 1 values"),
        ("evaluation.episodes.ways=4", "cannot train at 3 ways (episodes.ways) and be judged at 4"),
        ("algorithm.kind=nearest_neighbor", "algorithm 'nearest_neighbor' has nothing to train"),
    ],
)
def test_settings(refused_train: Train, setting: str, expected: str) -> None:
    assert expected in refused_train(setting)


# Sources


@pytest.mark.parametrize(
    ("settings", "part"),
    [(("episodes.ways=13",), "meta-train"), (("episodes.ways=9",), "meta-val")],
)
def test_too_few_classes(refused_train: Train, settings: tuple[str, ...], part: str) -> None:
    message = refused_train(*settings)
    assert f"{settings[0].partition('=')[2]} ways asked for, but {part} has" in message


@pytest.mark.parametrize("short", ["meta-train", "meta-val", "meta-test"])
def test_too_few_classes_or_examples_in_any_split(refused_train: Train, place: Path, short: str) -> None:
    parts = ("meta-train", "meta-val", "meta-test")
    splits = {part: list(range(3 * i, 3 * i + 3)) for i, part in enumerate(parts)}
    counts = [2 if i in splits[short] else 3 for i in range(9)]
    few = store(place / "few.arrow", splits, counts)
    message = refused_train(f"source.path={few}")
    assert f"3 ways asked for, but {short} has 0 classes with at least 3 examples (1 shot + 2 queries)" in message
    splits[short] = splits[short][:2]
    message = refused_train(f"source.path={store(place / 'few.arrow', splits, [3] * 9)}")
    assert f"3 ways asked for, but {short} has 2 classes" in message


def test_missing_and_foreign_and_truncated_stores(refused_train: Train, refused: Refused, place: Path) -> None:
    good = store(place / "good.arrow", {"meta-train": [0, 1]}, [3, 3])
    (place / "cut.arrow").write_bytes(good.read_bytes()[:-100])
    (place / "text.arrow").write_text("not arrow at all")
    with pa.OSFile(str(place / "foreign.arrow"), "wb") as sink:
        table = pa.table({"a": [1, 2]})
        with pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
    for name, expected in {
        "none.arrow": "no such class store",
        "cut.arrow": "not a class store, or a truncated one",
        "text.arrow": "not a class store, or a truncated one",
        "foreign.arrow": "an Arrow file, but not a class store of metaray",
    }.items():
        for message in (refused_train(f"source.path={name}"), refused("data", "describe", name)):
            assert name in message
            assert expected in message
    assert "unknown split scheme of good.arrow 'vinyals'" in refused_train(
        "source.path=good.arrow", "source.split=vinyals"
    )


def test_a_store_with_one_wrong_bit_is_refused_by_every_command(
    refused_train: Train, refused: Refused, place: Path, trained: Any
) -> None:
    path = store(place / "good.arrow", {"meta-train": [0, 1], "meta-val": [2, 3], "meta-test": [4, 5]}, [9] * 6)
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)
    told = "good.arrow: damaged: its examples or their description don't match its fingerprint"
    assert told in refused_train("source.path=good.arrow")
    assert told in refused("data", "describe", "good.arrow", "--verify")
    learner = trained.storage / "first/learner"
    assert told in refused("evaluate", learner, "--set", "source.path=good.arrow", "--verify")
    assert "; import the data again (metaray data import), or copy the file again" in refused("data", "describe", path)


@pytest.mark.parametrize("value", ["9" * 5000, "[" * 5000, '"\\u0000"', '{"a": 1, "a": 2}'])
@pytest.mark.parametrize("key", ["seed", "algorithm.inner_lr", "source.path", "model.hidden"])
def test_hostile_settings(refused_train: Train, key: str, value: str) -> None:
    refused_train(f"{key}={value}")


def test_overlapping_splits_in_a_store(refused_train: Train, place: Path) -> None:
    path = store(place / "good.arrow", {"meta-train": [0, 1], "meta-val": [2], "meta-test": [3]}, [3] * 4)
    with pa.OSFile(str(path)) as file:
        table = pa.ipc.open_file(file).read_all()
    meta = json.loads(table.schema.metadata[METADATA_KEY])
    meta["schemes"]["default"]["meta-test"] = [1]
    schema = table.schema.with_metadata({METADATA_KEY: json.dumps(meta)})
    with pa.OSFile(str(place / "overlap.arrow"), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        writer.write_table(table.cast(schema))
    message = refused_train("source.path=overlap.arrow")
    assert "overlap.arrow: split scheme 'default': meta-train and meta-test overlap in 1 classes: 'class1'" in message


def image_folder(folder: Path, classes: int = 3) -> Path:
    for name in range(classes):
        (folder / f"c{name}").mkdir(parents=True)
        for shot in range(2):
            Image.new("L", (8, 8), 60 * name + shot).save(folder / f"c{name}" / f"{shot}.png")
    return folder


@pytest.mark.parametrize(
    ("files", "options", "expected"),
    [
        ("train/a/1 val/a/1 test/a/1", (), "the folders train, val, test hold the same classes (1 of 1: a)"),
        ("x/a/1 x/b/1 y/c/1", (), "--depth 2 takes these folders as the classes, with names such as 'x/a'"),
        ("a/1 a/thumbs/1 b/1", (), "'a/thumbs' (1); --nested join"),
        ("a/1 b/1", ("--depth", "2"), "2 images in it, but none 2 folders deep or deeper (--depth 2)"),
        ("1 2 3", (), "3 images directly in it, for instance '1.png', and no class folders"),
        ("1 2 3", ("--labels", "none.csv"), "none.csv: can't read the labels: No such file"),
        ("1 2 3", ("--columns", "a,b"), "--columns 'a,b': names columns of --labels, which is not given"),
        ("a/1 b/1", ("--encoding", "latin-99"), "--encoding 'latin-99': no encoding of text"),
        ("a/1 b/1", ("--nested", "merge"), "merge"),
        ("a\nb/1 c/1", (), "the name 'a\\nb/1.png' holds the control character '\\n'"),
    ],
)
def test_folders_that_are_no_folder_per_class(
    place: Path, command: Command, files: str, options: tuple[str, ...], expected: str
) -> None:
    for i, name in enumerate(files.split(" ")):
        path = place / "images" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 9 * i).save(path)
    code, out, err = command("data", "import", "images", "images", "--out", "x.arrow", *options)
    assert (code, out) == (2, "")
    assert expected in err and "Traceback" not in err
    assert not (place / "x.arrow").exists()


def test_a_folder_without_an_image(refused: Refused, place: Path) -> None:
    (place / "images" / "a").mkdir(parents=True)
    (place / "images" / "a" / "notes.txt").write_text("hello")
    message = refused("data", "import", "images", "images", "--out", "x.arrow")
    assert message == "images: no images in it; the files found are 1 with .txt, for instance 'a/notes.txt'."


def test_overlapping_split_files(refused: Refused, place: Path) -> None:
    image_folder(place / "images")
    (place / "splits").mkdir()
    for name, text in {"train": "c0\nc1\n", "val": "c2\n", "test": "c1\n"}.items():
        (place / "splits" / f"{name}.txt").write_text(text)
    message = refused("data", "import", "images", "images", "--out", "x.arrow", "--splits", "splits")
    assert "meta-train and meta-test overlap in 1 classes: 'c1'" in message


def test_a_corrupt_or_foreign_file_among_images(refused: Refused, place: Path) -> None:
    image_folder(place / "images")
    whole = (place / "images/c1/0.png").read_bytes()
    for content, expected in ((b"hello", "not an image"), (whole[:40], "image")):
        (place / "images/c1/1.png").write_bytes(content)
        message = refused("data", "import", "images", "images", "--out", "x.arrow", "--splits", "0.4,0.3,0.3")
        assert "images/c1/1.png" in message
        assert expected in message


@pytest.mark.parametrize("name", ["../evil.png", "/evil.png", "c0/../../evil.png", "..\\evil.png"])
def test_a_zip_that_leads_out(refused: Refused, place: Path, name: str) -> None:
    with zipfile.ZipFile(place / "x.zip", "w") as archive:
        archive.writestr(name, b"x")
    message = refused("data", "import", "images", "x.zip", "--out", "x.arrow")
    assert "leads out of the archive" in message
    assert repr(name) in message


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--size", "0"), "--size '0': write SIDE or HEIGHTxWIDTH in pixels"),
        (("--size", "a"), "--size 'a'"),
        (("--size", "1x2x3"), "--size '1x2x3'"),
        (("--splits", "a,b,c"), "--splits 'a,b,c': give three fractions"),
        (("--splits", "1,1,1"), "(1.0, 1.0, 1.0) must be three numbers"),
        (("--splits", "nowhere"), "nowhere"),
        (("--mode", "CMYK"), "CMYK"),
    ],
)
def test_import_options(refused: Refused, place: Path, options: tuple[str, ...], expected: str) -> None:
    image_folder(place / "images")
    assert expected in refused("data", "import", "images", "images", "--out", "x.arrow", *options)


# Models


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Flat", "shape [2, 7], but maml needs [2, 3] (one output for each of 3 ways)"),
        ("Tall", "shape [2, 7, 1], but maml needs [2, 3]"),
        ("Narrow", "the model cannot take a batch of shape (2, 1, 16, 16) from this source"),
        ("number", "bad_input_networks:number returned int, not a torch.nn.Module"),
        ("Flatt", "unknown name in bad_input_networks 'Flatt'. Did you mean 'Flat'?"),
    ],
)
def test_custom_models(refused_train: Train, name: str, expected: str) -> None:
    assert expected in refused_train("model.kind=custom", f"model.path=bad_input_networks:{name}")


def test_custom_models_that_cannot_be_called(refused_train: Train) -> None:
    message = refused_train("model.kind=custom", "model.path=bad_input_networks:Flat", "model.options.size=3")
    assert "can't be called with feature_shape, outputs, size: got an unexpected keyword argument 'size'" in message
    message = refused_train("model.kind=custom", "model.path=no_such_package_here:Flat")
    assert "cannot import 'no_such_package_here'" in message
    assert "'Flat' is not an import path" in refused_train("model.kind=custom", "model.path=Flat")


# Places


def test_tracking_servers(refused_train: Train, place: Path) -> None:
    (place / "text.db").write_text("this is no database, but a text of some length")
    for uri, expected in {
        "http://127.0.0.1:9": "can't be reached",
        "mlruns": "names a folder",
        "sqllite:///x.db": "Did you mean 'sqlite'?",
        "sqlite:///no/such/folder/x.db": "does not exist",
        "sqlite:///text.db": "is not a usable SQLite database",
    }.items():
        message = refused_train(options=("--tracking-uri", uri))
        assert uri.removeprefix("sqlite:///") in message
        assert expected in message


def test_unwritable_places(refused_train: Train, refused: Refused, place: Path, tiny_store: Path) -> None:
    (place / "file").write_text("a file, and no folder")
    image_folder(place / "images")
    assert "file/runs' is not writable" in refused_train(options=("--storage", "file/runs"))
    assert "nosuch://x" in refused_train(options=("--storage", "nosuch://x"))
    for arguments in (
        ("data", "import", "images", "images", "--out"),
        ("data", "import", "glyphs", "--out"),
        ("data", "describe", tiny_store, "--gallery"),
        ("data", "export", tiny_store, "--out"),
    ):
        assert "file/x" in refused(*arguments, "file/x.png")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            ("--workers", "3"),
            "3 workers for a meta-batch of 2 in 2 chunks of 1 episode: each worker needs at least one",
        ),
        (("--workers", "many"), "workers 'many': give a number such as 2, or FEWEST:MOST such as 1:4"),
        (("--workers", "-1"), "workers '-1': give a number such as 2"),
        (("--workers", "4:2"), "workers '4:2': the fewest must be at least 1 and at most the most"),
        (("--device", "gpu"), "unknown device 'gpu'"),
        (("--address", "1.2.3.4:5"), "a cluster address ('1.2.3.4:5') needs at least 1 worker"),
        (
            ("--run", "a/b"),
            "run name 'a/b': use letters, digits",
        ),
        (("--run", "caf\u00e9 1"), "; for instance 'cafe-1'"),
        (("--run", ".."), "run name '..'"),
    ],
)
def test_train_options(refused_train: Train, options: tuple[str, ...], expected: str) -> None:
    assert expected in refused_train(options=options)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1:9", "no Ray cluster answers at '127.0.0.1:9'"),
        ("nonsense", "the cluster address 'nonsense' is not of the form HOST:PORT"),
        ("http://head:8265", "is the address of a cluster's dashboard, which takes jobs: `metaray submit train"),
    ],
)
def test_a_cluster_that_is_not_there(
    refused_train: Train, monkeypatch: pytest.MonkeyPatch, address: str, expected: str
) -> None:
    # Another test of the session may have started Ray.
    monkeypatch.setattr("ray.is_initialized", lambda: False)
    assert expected in refused_train(options=("--workers", "1", "--address", address))


def test_a_gpu_that_is_not_there(refused_train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert "device 'cuda' asked for, but torch sees no GPU here" in refused_train(options=("--device", "cuda"))


# The registry and learners


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("models:/tyni@champion", "'tyni'. Did you mean 'tiny'?"),
        ("models:/tiny@chmpion", "unknown alias of tiny 'chmpion'. Did you mean 'champion'?"),
        ("models:/tiny/99", "unknown version of tiny '99'. Known: 1"),
        ("models:/tiny", "'models:/tiny' is not a model URI; write models:/NAME@ALIAS"),
        ("runs:/abc/learner", "there is no run 'abc'"),
        ("no_such_folder", "'no_such_folder' does not exist"),
    ],
)
def test_registry_names(refused: Refused, trained: Any, place: Path, model: str, expected: str) -> None:
    image_folder(place / "images")
    folders = ("--support", "images", "--query", "images")
    for command in (("evaluate", model), ("adapt", model, *folders)):
        assert expected in refused(*command, "--tracking-uri", trained.uri)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("show", "tinny"), "'tinny'. Did you mean 'tiny'?"),
        (("promote", "tinny", "1"), "'tinny'. Did you mean 'tiny'?"),
        (("promote", "tiny", "99"), "unknown version of tiny '99'. Known: 1"),
        (("promote", "tiny", "1", "--alias", "latest"), "'latest' can't be an alias"),
    ],
)
def test_registry_commands(refused: Refused, trained: Any, arguments: tuple[str, ...], expected: str) -> None:
    assert expected in refused("registry", *arguments, "--tracking-uri", trained.uri)


def test_runs_to_upload(refused: Refused, trained: Any, place: Path) -> None:
    places = ("--storage", trained.storage, "--tracking-uri", f"sqlite:///{place}/new.db")
    for name, expected in {
        "frist": "unknown run in STORAGE: 'frist'. Did you mean 'first'? Known: first",
        "../runs/first": "unknown run in STORAGE: '../runs/first'.",
        "": "unknown run in STORAGE: ''.",
    }.items():
        assert expected.replace("STORAGE", str(trained.storage)) in refused("upload", name, *places)
    assert "Known: none." in refused("upload", "first", "--storage", place / "nowhere")
    for uri, expected in {"mlruns": "names a folder", "http://127.0.0.1:9": "can't be reached"}.items():
        assert expected in refused("upload", "first", "--storage", trained.storage, "--tracking-uri", uri)


def test_evaluate_options(refused: Refused, trained: Any) -> None:
    base = ("evaluate", trained.storage / "first" / "learner")
    assert "unknown split 'meta-tset'. Did you mean 'meta-test'?" in refused(*base, "--part", "meta-tset")
    assert "Did you mean 'source.path'?" in refused(*base, "--set", "source.pth=x")
    assert "none.arrow: no such class store" in refused(*base, "--set", "source.path=none.arrow")
    assert "9 ways asked for" in refused(*base, "--set", "episodes.ways=9")


def test_a_support_that_does_not_fit_the_learner(refused: Refused, trained: Any, place: Path) -> None:
    base = ("adapt", trained.storage / "first" / "learner")
    image_folder(place / "four", classes=4)
    image_folder(place / "three")
    (place / "empty").mkdir()
    message = refused(*base, "--support", "four", "--query", "three")
    assert "the support set has 4 classes, but this learner is 3-way" in message
    assert "support folder 'nowhere' does not exist" in refused(*base, "--support", "nowhere", "--query", "three")
    assert "query folder 'empty' is empty" in refused(*base, "--support", "three", "--query", "empty")
    assert "'empty'" in refused(*base, "--support", "empty", "--query", "three")
    (place / "three/c0/0.png").write_text("hello")
    assert "three/c0/0.png' is not an image" in refused(*base, "--support", "three", "--query", "four")


def test_a_picture_that_cannot_be_written(refused: Refused, trained: Any, place: Path) -> None:
    image_folder(place / "three")
    (place / "file").write_text("")
    base = ("adapt", trained.storage / "first" / "learner", "--support", "three", "--query", "three")
    assert "file/x.png: can't write to the folder" in refused(*base, "--picture", "file/x.png")
    assert "three: can't write there, it is a folder" in refused(*base, "--picture", "three")


def test_raw_inputs_of_the_wrong_shape(trained: Any) -> None:
    import metaray

    learner = metaray.load(trained.storage / "first" / "learner")
    x = np.zeros((3, 16, 16), np.uint8)
    with pytest.raises(InputError, match="3 support images for 2 labels"):
        learner.adapt(x, ["a", "b"])
    with pytest.raises(InputError, match="2 classes, but this learner is 3-way"):
        learner.adapt(x, ["a", "b", "b"])
    task = learner.adapt(x, ["a", "b", "c"])
    with pytest.raises(InputError, match=r"image 0 is an array of shape \(16, 16, 16\)"):
        task.predict(np.zeros((1, 16, 16, 16), np.uint8))
    with pytest.raises(InputError, match="type float64"):
        task.predict(np.zeros((1, 16, 16)))
    with pytest.raises(InputError, match="no images given"):
        task.predict([])


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("model", {"kind": "custom", "path": "os:system", "options": {}}),
        ("model", {"kind": "bad_input_networks:Flat"}),
        ("algorithm", {"kind": "subprocess:Popen"}),
    ],
)
def test_an_artifact_that_names_code_outside_metaray(
    refused: Refused, trained: Any, place: Path, part: str, value: dict[str, Any]
) -> None:
    from metaray.learners.learner_file import DESCRIPTION, PARAMETERS
    from metaray.manifest import sealed

    whole = trained.storage / "first" / "learner"
    description = json.loads((whole / DESCRIPTION).read_text()) | {part: value}
    files = {DESCRIPTION: json.dumps(description).encode(), PARAMETERS: (whole / PARAMETERS).read_bytes()}
    (place / "evil").mkdir()
    for name, content in sealed(files).items():
        (place / "evil" / name).write_bytes(content)
    image_folder(place / "images")
    path = value.get("path", value["kind"])
    for command in (("evaluate", "evil"), ("adapt", "evil", "--support", "images", "--query", "images")):
        message = refused(*command)
        assert f"refusing to import {path!r}: it lies outside metaray" in message
        assert f"trust=[{path.partition(':')[0]!r}]" in message
    assert "bad_input_networks" not in sys.modules


def test_a_damaged_learner(refused: Refused, trained: Any, place: Path) -> None:
    (place / "learner").mkdir()
    for file in (trained.storage / "first" / "learner").iterdir():
        (place / "learner" / file.name).write_bytes(file.read_bytes()[:-1])
    assert "learner does not hold a whole learner" in refused("evaluate", "learner")
