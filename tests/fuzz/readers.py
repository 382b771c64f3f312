"""How each surface reads, and how what it reads is damaged in its own way."""

import hashlib
import io
import json
import os
import random
import tempfile
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from PIL import Image

from metaray.algorithms import MAML
from metaray.data import ClassStore, FunctionFamily
from metaray.data.draws import SPLITS
from metaray.data.preprocessing import ImagePreprocessing
from metaray.data.remote import local_path
from metaray.data.store_file import METADATA_KEY, write_store
from metaray.episodes.episode import EpisodeSpec
from metaray.episodes.sampler import sample_episode
from metaray.errors import InputError
from metaray.experiment.experiment import Checkpoint, Evaluation, Experiment
from metaray.experiment.overrides import override
from metaray.learners.learner import Learner
from metaray.learners.loading import load_learner
from metaray.manifest import MANIFEST, sealed
from metaray.models import MLP, Encoder
from metaray.records.checkpoint import load_checkpoint
from metaray.records.checkpoint_files import sweep
from metaray.records.events import Fanout
from metaray.records.journal import JournalReader
from metaray.records.run import Run
from metaray.records.storage import Storage
from metaray.serving.pyfunc import PyfuncLearner, example_input
from metaray.serving.tables import read_points
from metaray.submission.client import JobsClient
from metaray.training.outer_loop import initial_state
from tests.fuzz.mutations import EXTREMES, damage_bytes, damage_json
from tests.models.encoders.tiny_images import PREPARATION, resnet_folder, vit_folder
from tests.training.whole_runs import train_in_process

Files = dict[str, bytes]


def digest(*values: object) -> str:
    """A short name of what was read."""
    found = hashlib.sha256()
    for value in values:
        found.update(np.ascontiguousarray(value).tobytes() if isinstance(value, np.ndarray) else repr(value).encode())
    return found.hexdigest()[:16]


def tiny_store(folder: Path) -> Path:
    """Nine classes of four grey images of 8 x 8."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (36, 1, 8, 8), dtype=np.uint8)
    path = folder / "tiny.arrow"
    write_store(
        path,
        examples=images,
        counts=[4] * 9,
        class_names=[f"class{i}" for i in range(9)],
        schemes={"default": {split: [3 * i, 3 * i + 1, 3 * i + 2] for i, split in enumerate(SPLITS)}},
        preprocessing=ImagePreprocessing(height=8, width=8),
        origin={"importer": "fuzz"},
    )
    return path


def classes_experiment(store: Path) -> Experiment:
    """A run of a fraction of a second."""
    return Experiment(
        name="fuzz",
        source=ClassStore(path=str(store)),
        episodes=EpisodeSpec(ways=2, shots=1, queries=1),
        model=MLP(hidden=(4,)),
        algorithm=MAML(inner_lr=0.1, batch_norm="inductive"),
        meta_batch_size=2,
        num_steps=4,
        evaluation=Evaluation(every=2, val_episodes=2, test_episodes=2),
        checkpoint=Checkpoint(every=2),
    )


def waves_experiment() -> Experiment:
    """The same in regression."""
    return Experiment(
        name="fuzz-waves",
        source=FunctionFamily(),
        episodes=EpisodeSpec(shots=3, queries=2),
        model=MLP(hidden=(4,), batch_norm=False),
        algorithm=MAML(inner_lr=0.01),
        meta_batch_size=2,
        num_steps=2,
        evaluation=Evaluation(every=2, val_episodes=2, test_episodes=2),
    )


def trained(experiment: Experiment, folder: Path) -> Storage:
    """The folder of a finished run."""
    storage = Storage(str(folder))
    Run(folder.name, storage).begin(experiment, tags={}, tracking_run="0" * 32)
    train_in_process(experiment, storage, Fanout([]), device="cpu")
    return storage


def files_of(folder: Path) -> Files:
    """All files below a folder, by their paths."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def written(files: Mapping[str, bytes]) -> Path:
    """The files in a new folder, which the child leaves to the runner's own scratch."""
    folder = Path(tempfile.mkdtemp())
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


# --- class stores


def read_a_store(data: bytes) -> object:
    path = written({"s.arrow": data}) / "s.arrow"
    source = ClassStore(path=str(path))
    seen: list[object] = [source.fingerprint]
    for split in SPLITS:
        source.check(split, EpisodeSpec(ways=2, shots=1, queries=1))
        for index in range(6):
            episode = sample_episode(source, EpisodeSpec(ways=2, shots=1, queries=1), split, 0, index)
            names = [source.class_name(int(one)) for one in episode.task.class_ids]
            seen += [episode.task.support.x, episode.task.query.x, names]
    return digest(*seen, source.preprocessing)


def damage_store_metadata(data: bytes, chance: random.Random) -> bytes:
    with pa.ipc.open_file(io.BytesIO(data)) as reader:
        table = reader.read_all()
    metadata = dict(table.schema.metadata)
    metadata[METADATA_KEY] = damage_json(metadata[METADATA_KEY].decode(), chance)
    out = io.BytesIO()
    schema = table.schema.with_metadata(metadata)
    with pa.ipc.new_file(out, schema) as writer:
        writer.write_table(table.replace_schema_metadata(metadata))
    return out.getvalue()


# --- experiments

SETTINGS = (
    "algorithm.inner_lr",
    "num_steps",
    "model.hidden",
    "optimizer.kind",
    "source.path",
    "episodes",
    "name",
    "seed.x",
)


def read_an_experiment(given: tuple[bytes, list[str]]) -> object:
    text, settings = given
    experiment = Experiment.from_json(text.decode("utf-8", "surrogateescape"), trust=())
    return override(experiment, settings).to_json()


def damage_experiment(text: str, chance: random.Random) -> tuple[bytes, list[str]]:
    if chance.random() < 0.6:
        return damage_json(text, chance), []
    values = [damage_json("1", chance).decode(errors="replace"), json.dumps(chance.choice(EXTREMES)), "{'a': ["]
    return text.encode(), [f"{chance.choice(SETTINGS)}={chance.choice(values)}" for _ in range(chance.randint(1, 2))]


# --- learners


def read_a_learner(files: Files) -> object:
    learner = load_learner(written(files))
    frame = example_input(learner)
    return digest(learner.algorithm, PyfuncLearner(learner).predict(frame).to_json())


def damage_one(files: Files, chance: random.Random) -> Files:
    """Bytes of one file, or that it is missing."""
    name = chance.choice(sorted(files))
    if chance.random() < 0.1:
        return {other: data for other, data in files.items() if other != name}
    return files | {name: damage_bytes(files[name], chance)}


def resealed(files: Files, chance: random.Random) -> Files:
    """A learner that somebody made: its checksums are right, what they cover is not."""
    contents = {name: data for name, data in files.items() if name != MANIFEST}
    name = chance.choice(sorted(contents))
    damaged = (
        damage_json(contents[name].decode(), chance) if name.endswith(".json") else damage_bytes(contents[name], chance)
    )
    return sealed(contents | {name: damaged})


# --- encoders


def encoder_files(folder: Path, kind: str) -> Files:
    """A tiny image encoder, as people have them."""
    make = {"resnet": resnet_folder, "vit": vit_folder}[kind]
    return files_of(Path(make(folder, preparation=PREPARATION)))


def read_an_encoder(files: Files) -> object:
    folder = written(files)
    os.environ["METARAY_CACHE"] = str(folder / "cache")  # of the child
    encoder = Encoder.parse({"path": str(folder)}, where="encoder")
    images = ImagePreprocessing(height=8, width=8)
    with torch.no_grad():
        made = encoder.body(images)(images.normalize(torch.from_numpy(np.asarray(images.probe(2)))))
    assert made.shape == (2, encoder.size)
    return digest(encoder.architecture, encoder.sha256, made.numpy())


def damage_encoder(files: Files, chance: random.Random) -> Files:
    """Bytes of one file, or what its JSON says, that before the weights among it."""
    name = chance.choice(sorted(files))
    if name.endswith(".json"):
        return files | {name: damage_json(files[name].decode(), chance)}
    if chance.random() < 0.4:
        return damage_one({name: files[name]}, chance) | {other: files[other] for other in files if other != name}
    size = int.from_bytes(files[name][:8], "little")
    header = damage_json(files[name][8 : 8 + size].decode(), chance)
    return files | {name: len(header).to_bytes(8, "little") + header + files[name][8 + size :]}


# --- runs


def read_a_run(files: Files) -> object:
    folder = written({f"run/{name}": data for name, data in files.items()})
    root = Storage(str(folder))
    found = Run.find(root, "run")
    experiment = found.experiment()
    state = initial_state(experiment, torch.device("cpu"))
    progress, _, damaged = load_checkpoint(found.storage, state)
    reader = JournalReader(found.storage)
    entries = [(entry.key, entry.value, entry.step) for entry in reader.read()]
    if damaged or (lost := reader.damage(progress.segments) or found.notes()):
        raise InputError(f"said, and passed over: {damaged or lost}")
    if unfinished := sweep(found.storage):
        raise InputError(f"said, and removed: {unfinished}")
    result = found.result if found.is_finished else None
    if result is None and progress.step == experiment.num_steps:
        raise InputError("said: trained, and not judged yet")
    weights = [tensor.detach().numpy() for tensor in state.meta.values()]
    return digest(experiment.to_json(), result, entries, *weights, progress)


# --- tables, images, frames


def read_a_csv(data: bytes, learner: Learner) -> object:
    points = read_points(written({"p.csv": data}) / "p.csv", learner, targets=True)
    assert points.y is not None
    return digest(learner.adapt(points.x, points.y).predict_values(points.x))


def read_an_image(data: bytes, learner: Learner) -> object:
    folder = written({"support.png": PNG, "query.png": data})
    task = learner.adapt([folder / "support.png"] * 2, ["a", "b"])
    return digest(task.predict_proba([folder / "query.png", folder / "support.png"]))


KINDS = (
    ("PNG", "RGB"),
    ("PNG", "P"),
    ("PNG", "LA"),
    ("PNG", "I;16"),
    ("JPEG", "RGB"),
    ("GIF", "P"),
    ("TIFF", "RGB"),
    ("BMP", "RGB"),
    ("TIFF", "LAB"),
    ("WEBP", "RGBA"),
    ("PPM", "L"),
)


def image_files() -> list[bytes]:
    """One picture in several formats and modes."""
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 12, 3), dtype=np.uint8))
    found = []
    for kind, mode in KINDS:
        file = io.BytesIO()
        image = Image.new("LAB", (12, 12)) if mode == "LAB" else picture.convert("L" if mode == "I;16" else mode)
        (image.convert(mode) if mode == "I;16" else image).save(file, kind)
        found.append(file.getvalue())
    return found


PNG = image_files()[0]

CELLS: tuple[Any, ...] = (
    *EXTREMES,
    float("nan"),
    float("inf"),
    b"",
    b"\x89PNG\r\n\x1a\n",
    PNG,
    "support",
    "query",
    "class 0",
    ["a"],
    np.zeros(2),
    3 + 4j,
    np.float64(1.5),
    np.datetime64("2020-01-01"),
    bytearray(PNG),
    memoryview(PNG),
    object,
)


def read_a_frame(frame: Any, learner: Learner) -> object:
    found = PyfuncLearner(learner).predict(frame)
    return digest(found.to_numpy().tolist(), list(found.index))


def cells() -> tuple[Any, ...]:
    """With what pandas alone has."""
    import pandas as pd

    return (*CELLS, pd.NA, pd.NaT, pd.Timestamp(0))


# --- servers


def read_from_a_server(given: tuple[int, dict[str, str], bytes]) -> object:
    """Fetch a store from a server that answers as `given`: status, headers, body."""
    status, said, body = given

    class Handler(BaseHTTPRequestHandler):
        """Answers everything alike."""

        def do_GET(self) -> None:
            self.send_response(status)
            for name, value in said.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    path = local_path(f"http://127.0.0.1:{server.server_port}/s.arrow")
    return read_a_store(path.read_bytes())


def headers(body: bytes) -> dict[str, str]:
    """Those of a good answer."""
    return {"Content-Length": str(len(body)), "ETag": '"1"', "Connection": "close"}


def damage_answer(data: bytes, chance: random.Random) -> tuple[int, dict[str, str], bytes]:
    said, status = headers(data), 200
    kind = chance.randrange(4)
    if kind == 0:
        status = chance.choice((100, 204, 206, 301, 302, 304, 307, 400, 401, 403, 404, 416, 429, 500, 503, 599))
        said |= {
            "Location": chance.choice(
                ("file:///etc/passwd", "/s.arrow", "", "http://", "ftp://x/y", "//", "http://[::1")
            )
        }
    elif kind == 1:
        said[chance.choice(("Content-Length", "ETag", "Content-Encoding", "Transfer-Encoding"))] = chance.choice(
            ("", "-1", "0", "9" * 30, "x", "gzip", "chunked", '"' * 50, "1", str(len(data) + 1), str(len(data) - 1))
        )
    else:
        data = damage_bytes(data, chance)
        if kind == 2:
            said["Content-Length"] = str(len(data))
    return status, said, data


ANSWERS: dict[str, Any] = {
    "/api/version": {"version": "4", "ray_version": "2.60.0", "ray_commit": "x"},
    "/api/v0/cluster_metadata": {"result": True, "data": {"pythonVersion": "3.11.7"}},
    "/nodes?view=summary": {
        "data": {
            "summary": [
                {"raylet": {"isHeadNode": True, "state": "ALIVE"}, "cmdline": ["--python_worker_command=python x"]}
            ]
        }
    },
    "/api/jobs/": [
        {
            "submission_id": "metaray-a",
            "metadata": {"metaray.run": "a"},
            "status": "RUNNING",
            "message": None,
            "start_time": 1000,
            "end_time": None,
            "driver_exit_code": None,
            "entrypoint": "python -m metaray",
        },
        {"submission_id": None, "status": "FAILED"},
    ],
    "/api/jobs/metaray-a": {
        "submission_id": "metaray-a",
        "metadata": {},
        "status": "FAILED",
        "start_time": 1,
        "end_time": 2,
        "driver_exit_code": 1,
        "entrypoint": "x",
    },
    "/api/jobs/metaray-a/logs": {"logs": "step 1\n"},
}


def read_a_dashboard(answers: Mapping[str, bytes]) -> object:
    client = JobsClient("http://127.0.0.1:1", None)
    client._ask = lambda method, path, *_, **__: answers[path]  # type: ignore[method-assign]
    return digest(
        client.ray_version(),
        client.python_version(),
        client.head_python(),
        client.jobs(),
        client.job("metaray-a"),
        client.logs("metaray-a"),
    )


def damage_dashboard(answers: Mapping[str, bytes], chance: random.Random) -> dict[str, bytes]:
    path = chance.choice(sorted(answers))
    return dict(answers) | {path: damage_json(answers[path].decode(), chance)}
