"""A frozen text encoder with class means, untrained, on the intents of ProtAugment's folds, beside what was published.

    python -m jobs.benchmarks.intents FOLDER --encoder ENCODER --out docs/intents/frozen.json

and the same of TF-IDF, of the tokens of the encoder's tokenizer, on the same episodes; `--only` measures one of them,
and leaves what the record has of the other.

FOLDER holds `intent_banking77`, `intent_hwu64`, `intent_clinc150` and `intent_liu54`, as their authors give them, each
with `few_shot_splits/01..05/labels.{train,valid,test}.txt` of Dopierre, Gravier and Logerais ("ProtAugment", ACL 2021).
"""

import argparse
import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import torch

from metaray.algorithms.class_means import ClassMeans
from metaray.algorithms.context import Context
from metaray.algorithms.per_task import BASELINES
from metaray.data import ClassStore
from metaray.data.encoder_folder import read_tokenizer
from metaray.data.preprocessing import TextPreprocessing
from metaray.data.texts.importing import import_texts
from metaray.episodes.episode import EpisodeSpec
from metaray.models import Encoder
from metaray.models.encoders.embedding import embed_store
from metaray.records.estimate import estimate
from metaray.tasks.baselines import TF_IDF
from metaray.training.evaluation import Judge, evaluate
from metaray.training.rivals import Untrained

SETS = ("clinc150", "banking77", "hwu64", "liu54")
FOLDS = ("01", "02", "03", "04", "05")
SHOTS, WAYS, QUERIES = (1, 5), 5, 5
MEASURABLE = ("encoder", TF_IDF)
MEASURED = {
    ("all-MiniLM-L6-v2", "clinc150"): (94.50, 98.75),
    ("all-MiniLM-L6-v2", "banking77"): (86.92, 95.88),
    ("all-MiniLM-L6-v2", "hwu64"): (81.62, 92.65),
    ("WordLlama-256", "clinc150"): (88.62, 96.93),
    ("WordLlama-256", "banking77"): (82.14, 93.67),
    ("WordLlama-256", "hwu64"): (76.11, 89.71),
    ("WordLlama-256", "liu54"): (75.13, 88.69),
}
"""Percent at 1 and 5 shots, of the same protocol by a plain script: 600 episodes a fold, cosine to the class mean."""


def texts_of(name: str, folder: Path, scratch: Path) -> list[Path]:
    """The files of a data set as they can be imported."""
    home = folder / f"intent_{name}"
    if name == "banking77":
        return [home / "train.csv", home / "test.csv"]
    if name != "clinc150":
        return [home / "full.jsonl"]
    made = scratch / "clinc150.jsonl"
    tree: dict[str, Any] = json.loads((home / "data_full.json").read_text())
    with made.open("w") as file:
        for part in ("train", "val", "test"):
            for text, label in tree[part]:
                file.write(json.dumps({"text": text, "label": label}) + "\n")
    return [made]


def accuracies(path: Path, shots: int, episodes: int, baseline: str) -> Iterator[np.ndarray]:
    """Of a baseline (class means of a store's vectors, or of TF-IDF) on each fold's test classes, per episode."""
    spec = EpisodeSpec(ways=WAYS, shots=shots, queries=QUERIES)
    for fold in FOLDS:
        source = ClassStore(path=str(path), split=fold)
        context = Context(Untrained.of(baseline, source, lambda: None).network, ways=WAYS)
        judge = Judge(source, spec, "meta-test", episodes, seed=0)
        yield evaluate(BASELINES[baseline], {}, context, judge, device=torch.device("cpu")).score


def by_shots(path: Path, episodes: int, baseline: str) -> dict[str, Any]:
    """Percent over all folds, with its interval, and of each fold."""
    found = {}
    for shots in SHOTS:
        by_fold = list(accuracies(path, shots, episodes, baseline))
        whole = estimate(np.concatenate(by_fold))
        found[f"{shots}-shot"] = {
            "accuracy": round(100 * whole.mean, 2),
            "interval": round(100 * whole.half_width, 2),
            "folds": [round(100 * float(one.mean()), 2) for one in by_fold],
        }
    return found


def measured(
    name: str, folder: Path, encoder: Encoder, texts: TextPreprocessing, episodes: int, only: Sequence[str]
) -> dict[str, Any]:
    """What a data set gives, and what it takes."""
    with tempfile.TemporaryDirectory() as scratch:
        store, vectors = Path(scratch, "texts.arrow"), Path(scratch, "vectors.arrow")
        folds = {fold: folder / f"intent_{name}" / "few_shot_splits" / fold for fold in FOLDS}
        began = process_time()
        report = import_texts(texts_of(name, folder, Path(scratch)), store, texts, splits=folds)
        imported = process_time()
        found: dict[str, Any] = {
            "classes": report.classes,
            "texts": report.examples,
            "notes": list(report.notes),
            "import_cpu_s": round(imported - began, 2),
        }
        if "encoder" in only:
            embed_store(str(store), encoder, vectors)
            found |= {
                "embed_cpu_s": round(process_time() - imported, 2),
                **by_shots(vectors, episodes, ClassMeans.kind),
            }
        if TF_IDF in only:
            found[TF_IDF] = by_shots(store, episodes, TF_IDF)
        return found


def main() -> None:
    """Measure, print a line a figure, and write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--encoder", required=True, help="folder of the encoder, or its weights")
    parser.add_argument("--tokenizer", help="its tokenizer, where it is not in that folder")
    parser.add_argument("--no-special", action="store_true", help="texts without the tokens that are put around them")
    parser.add_argument("--called", default="all-MiniLM-L6-v2", help="what the encoder is called in the record")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    parser.add_argument("--episodes", type=int, default=600, help="of each fold")
    parser.add_argument("--only", nargs="+", choices=MEASURABLE, default=MEASURABLE)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(1)
    encoder = Encoder(path=given.encoder)
    texts = TextPreprocessing(tokenizer=read_tokenizer(given.tokenizer or given.encoder), special=not given.no_special)
    record: dict[str, Any] = {
        "encoder": given.called,
        "encoder_sha256": encoder.sha256,
        "protocol": f"{WAYS}-way, {QUERIES} queries a class, {given.episodes} episodes of each of the 5 test folds; "
        "cosine to the class mean, nothing trained",
        "sets": json.loads(given.out.read_text())["sets"] if given.out.exists() else {},
    }
    for name in given.sets:
        found = measured(name, given.folder, encoder, texts, given.episodes, given.only)
        record["sets"][name] = found = record["sets"].get(name, {}) | found
        for place, shots in enumerate(SHOTS):
            if TF_IDF in found:
                print(f"{name} {shots}-shot, TF-IDF: {found[TF_IDF][f'{shots}-shot']['accuracy']:.2f}", flush=True)
            if (one := found.get(f"{shots}-shot")) is None:
                continue
            other = MEASURED.get((given.called, name))
            if other is not None:
                one["plain_script"] = other[place]
            beside = "" if other is None else f" (a plain script: {other[place]})"
            print(f"{name} {shots}-shot: {one['accuracy']:.2f} +- {one['interval']:.2f}{beside}", flush=True)
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
