"""A stream of classes on Omniglot's held-out alphabets, by learners that adapt in closed form, beside OML's figures.

    python -m jobs.benchmarks.stream --data omniglot.arrow [--learners protonet r2d2] [--storage DIR] [--out docs]

DATA is what `metaray data import omniglot` writes. Each learner is trained on the alphabets of the background set and
the one that meta-val chose is judged, as `metaray evaluate --stream` does, on classes of the evaluation set. What is
found is kept in docs/stream/ after each order, and goes on from there when the same is asked again; docs/stream.md is
built from all that is there: nothing in it is edited by hand.
"""

import argparse
import hashlib
import json
import shlex
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from metaray.algorithms import R2D2, Algorithm, ProtoNet
from metaray.api.stream import protocol_of_stream
from metaray.data import ClassStore
from metaray.episodes.episode import EpisodeSpec
from metaray.experiment import Evaluation, Experiment, Optimizer, Precision
from metaray.learners.growth import How
from metaray.learners.learner import Learner
from metaray.learners.loading import load_learner
from metaray.models import Conv4
from metaray.plots.stream import draw_stream
from metaray.records.events import Event, Listener
from metaray.records.provenance import provenance
from metaray.records.result import read_result
from metaray.records.run import LEARNER
from metaray.records.storage import Storage
from metaray.records.stream import StreamCurve
from metaray.training.in_process import InProcess
from metaray.training.stream import stream_scores

STEPS = 900
CLASSES = (10, 50, 75, 100, 150, 200, 300, 423)
SHOTS = 15
OML = {10: 84.67, 50: 66.77, 75: 58.64, 100: 52.51, 150: 44.44, 200: 36.42}
"""Percent, measured by a user with the released checkpoint: kjaved0/mrcl#8."""
TITLES: dict[tuple[str, How], str] = {
    ("protonet", "together"): "ProtoNet",
    ("protonet", "continue"): "ProtoNet, class by class",
    ("r2d2", "continue"): "R2D2, class by class",
    ("pixels", "together"): "class means of pixels",
}
ALGORITHMS: dict[str, Algorithm] = {"protonet": ProtoNet(), "r2d2": R2D2()}


class Progress(Listener):
    """Prints meta-val as it comes."""

    def on_event(self, event: Event) -> None:
        """Print evaluations and notes."""
        if event.kind == "evaluation":
            print(f"step {event.step}: meta-val accuracy {event.values['val/accuracy']:.4f}", flush=True)
        elif event.kind == "note":
            print(event.text, flush=True)

    def close(self) -> None:
        """Nothing to do."""


def experiment_of(name: str, data: str) -> Experiment:
    """60-way 5-shot episodes of the background alphabets, chosen by meta-val at 100 ways."""
    return Experiment(
        name=f"omniglot-stream-{name}",
        source=ClassStore(path=data, split="lake", rotations=True),
        episodes=EpisodeSpec(ways=60, shots=5, queries=5),
        model=Conv4(bias=False),
        algorithm=ALGORITHMS[name],
        optimizer=Optimizer(outer_lr=1e-3, schedule="cosine"),
        meta_batch_size=1,
        num_steps=STEPS,
        evaluation=Evaluation(
            episodes=EpisodeSpec(ways=100, shots=15, queries=5), every=300, val_episodes=10, test_episodes=10
        ),
        precision=Precision(dtype="bfloat16", channels_last=True),
    )


def trained(name: str, data: str, storage: Path) -> tuple[Learner, dict[str, Any]]:
    """The learner of a run, which goes on where it was stopped, and what is to be said of its training."""
    experiment = experiment_of(name, data)
    digest = hashlib.sha256(experiment.to_json().encode()).hexdigest()[:12]
    place = Storage(str(storage / f"{name}-{digest}"))  # an edited recipe does not go on from what another left
    try:
        result = read_result(place)
    except FileNotFoundError:
        InProcess("cpu").train(experiment, place, Progress())
        result = read_result(place)
    with tempfile.TemporaryDirectory() as scratch:
        learner = load_learner(place.download(LEARNER, Path(scratch) / LEARNER))
    fields = experiment.model_dump(mode="json")
    fields["source"] |= {"path": Path(data).name}
    return learner, {
        "training_s": round(result.seconds),
        "num_steps": STEPS,
        "best_step": result.best_step,
        "meta_val": result.meta_val._asdict(),
        "parameters_sha256": result.parameters_sha256,
        "fingerprint": experiment.source.fingerprint,
        "experiment": fields,
    }


def judge(
    name: str, how: How, learner: Learner, about: Mapping[str, Any], given: argparse.Namespace, tags: Mapping[str, str]
) -> None:
    """The orders that a record lacks, one after the other."""
    path = given.out / "stream" / f"{name}-{how}.json"
    source = ClassStore(path=given.data, split="lake")
    spec = EpisodeSpec(ways=CLASSES[-1], shots=SHOTS, queries="rest")
    record: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    if record.get("parameters_sha256") != about.get("parameters_sha256") or record.get("classes") != list(CLASSES):
        record = {"orders": [], "judging_s": []}
    command = f"python -m jobs.benchmarks.stream --data omniglot.arrow --learners {name} --orders {given.orders}"
    record |= {
        "learner": name,
        "how": how,
        "classes": list(CLASSES),
        "protocol": protocol_of_stream(spec, learner, how),
        "judged_fingerprint": source.fingerprint,
        "command": shlex.join(command.split()),
        "commit": tags.get("git.commit", "unknown"),
        "dirty": tags.get("git.dirty", "unknown"),
        "torch": tags["torch.version"],
        "device": f"CPU {tags['cpu.capability']}",
        **about,
    }
    for order in range(len(record["orders"]), given.orders):
        began = time.process_time()
        scores = stream_scores(learner, source, "meta-test", spec, CLASSES, order=order, how=how)
        record["orders"].append(scores)
        record["judging_s"].append(round(time.process_time() - began, 1))
        print(f"{name}, {how}, order {order}: {' '.join(f'{100 * score:.2f}' for score in scores)}", flush=True)
        write_whole(path, json.dumps(record, indent=1) + "\n")


def curve_of(record: Mapping[str, Any]) -> StreamCurve:
    """A record as a curve."""
    return StreamCurve(
        model=record["learner"],
        split="meta-test",
        protocol=record["protocol"],
        quality="accuracy",
        classes=tuple(record["classes"]),
        orders=tuple(map(tuple, record["orders"])),
        baselines={},
    )


def page(records: list[dict[str, Any]]) -> str:
    """The whole page, of all records."""
    titles = [TITLES[record["learner"], record["how"]] for record in records]
    rows = []
    for place, count in enumerate(CLASSES):
        cells = [f"{OML[count]:.2f}" if count in OML else ""]
        for record in records:
            score = curve_of(record).scores[place]
            cells.append(f"{100 * score.mean:.2f} +- {100 * score.half_width:.2f}")
        rows.append(f"| {' | '.join([str(count), *cells])} |")
    return "\n".join(
        [
            "# A stream of classes: Omniglot, 10 to 423",
            "",
            "Made by `jobs/benchmarks/stream.py` from the records in `stream/`.",
            "",
            "Percent of held-out drawings told apart among all classes that have arrived, mean and 95% interval over "
            f"{len(records[0]['orders'])} orders. Trained on Lake's background alphabets (25 of the 30; 5 are "
            f"meta-val); the classes of the stream are {CLASSES[-1]} of the 659 of the evaluation alphabets, others in "
            f"each order, without rotations: {SHOTS} drawings of each are support, 5 are judged. A task of the first "
            "10 classes is extended by `AdaptedTask.extend`.",
            "",
            f"| classes | OML, published | {' | '.join(titles)} |",
            "|---" * (2 + len(titles)) + "|",
            *rows,
            "",
            "![accuracy over classes](stream/curve.png)",
            "",
            "## What is compared",
            "",
            'The stream is OML\'s (Javed and White, "Meta-learning representations for continual learning", NeurIPS '
            "2019, arXiv:1905.12588): classes of Omniglot's evaluation set, 15 drawings of each to learn from and 5 to "
            "be judged on, one class after the other. How it is learned is not the same, and that is the point:",
            "",
            "- OML learns online: its last layers take a gradient step for each drawing, once, in the order of the "
            "classes, and hold nothing else of those that went by. What it loses is forgotten. Its figures are those "
            "that a user measured with the released checkpoint (kjaved0/mrcl#8), who says that the revised paper's are "
            "higher; the authors then released another checkpoint, of which no such list was found.",
            "- Class means and ridge regression hold sums over the examples of each class, or of all, in which nothing "
            'is forgotten: what is lost with more classes is that these are harder to tell apart. "Class by class" '
            "sees each drawing once, too, and keeps none; its batch norm has the statistics of the first 10 classes. "
            "The other column keeps the drawings, normalises by all of them, and so equals adapting to everything at "
            "once.",
            "- Network and training differ: OML's has six convolutions of 256 channels and trains on 84 x 84 pixels "
            "for a loss after online learning; here it is Conv4 of 64 channels on 28 x 28, trained on 60-way 5-shot "
            f"episodes with rotated classes for {STEPS} steps.",
            "",
            "## Where the numbers come from",
            "",
            *map(origin, records),
            "",
        ]
    )


def origin(record: Mapping[str, Any]) -> str:
    """Where a column comes from."""
    changed = ", with changes" if record["dirty"] == "true" else ""
    told = f"- {TITLES[record['learner'], record['how']]}: `{record['command']}`; {record['protocol']}; "
    if "best_step" in record:
        told += (
            f"the learner of step {record['best_step']} of {record['num_steps']}, chosen by meta-val, after "
            f"{record['training_s']} s of training on a shared core; parameters sha256 "
            f"{record['parameters_sha256'][:12]}; "
        )
    seconds = sum(record["judging_s"]) / len(record["judging_s"])
    return (
        f"{told}{seconds:.0f} s of CPU an order; commit {record['commit']}{changed}; torch {record['torch']}, "
        f"{record['device']}"
    )


def write_whole(path: Path, text: str) -> None:
    """Write a file beside and rename it: no reader and no kill finds half of it."""
    beside = path.with_name(f"{path.name}.new")
    beside.write_text(text)
    beside.replace(path)


def built(out: Path) -> None:
    """The page and its picture, of all records."""
    found = {
        (one["learner"], one["how"]): one for path in out.glob("stream/*.json") if (one := json.loads(path.read_text()))
    }
    records = [found[key] for key in TITLES if key in found]
    curves = {TITLES[one["learner"], one["how"]]: curve_of(one) for one in records}
    oml = {"OML, published": [(count, value / 100) for count, value in OML.items()]}
    draw_stream(curves, out / "stream" / "curve.png", "Omniglot: accuracy over classes", oml)
    write_whole(out / "stream.md", page(records))


def main() -> None:
    """Run what is asked for, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="store of Omniglot")
    parser.add_argument("--learners", nargs="*", choices=list(ALGORITHMS), default=list(ALGORITHMS))
    parser.add_argument("--orders", type=int, default=10)
    parser.add_argument("--storage", type=Path, help="folder of the runs, where they can go on; by default a new one")
    parser.add_argument("--out", type=Path, default=Path("docs"))
    given = parser.parse_args()
    tags = provenance()  # of the code as it was imported, whatever is committed meanwhile
    (given.out / "stream").mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        storage = given.storage or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for name in given.learners:
            learner, about = trained(name, given.data, storage)
            for one, how in TITLES:
                if one == name:
                    judge(one, how, learner, about, given, tags)
            if name == "protonet":
                judge("pixels", "together", learner.baseline("class_means"), {}, given, tags)
            built(given.out)


if __name__ == "__main__":
    main()
