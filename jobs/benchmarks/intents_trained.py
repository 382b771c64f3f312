"""What meta-training gains over the frozen encoder on the intents of ProtAugment's folds, 5-way 1-shot.

    python -m jobs.benchmarks.intents_trained prepare FOLDER --encoder ENCODER --scratch SCRATCH
    python -m jobs.benchmarks.intents_trained try --scratch SCRATCH --encoder ENCODER
    python -m jobs.benchmarks.intents_trained judge --scratch SCRATCH --encoder ENCODER
    python -m jobs.benchmarks.intents_trained report --scratch SCRATCH --out docs/intents/trained.json

`try` trains every setting on the first folds and judges it on their validation classes alone; the setting that gains
most there, on the mean of all data sets, is the one recipe for all of them. `judge` trains that on each fold, keeps
what was best on its validation classes, and judges it once on its test classes, beside the frozen encoder on the same
episodes. Whatever is done already is not done again. FOLDER is as in `jobs.benchmarks.intents`.
"""

import argparse
import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np

from jobs.benchmarks.intents import FOLDS, SETS, texts_of
from jobs.benchmarks.intents_training import SETTINGS, Given, Job, run, store_of
from metaray.data.draws import Split
from metaray.data.encoder_folder import read_tokenizer
from metaray.data.preprocessing import TextPreprocessing
from metaray.data.texts.importing import import_texts
from metaray.models import Encoder
from metaray.models.encoders.embedding import embed_store

TRIED_FOLDS = ("01", "02")
STUDENT_95 = {2: 12.706205, 3: 4.302653, 4: 3.182446, 5: 2.776445}
"""Of the t distribution, by the number of folds."""


def prepare(given: Given, folder: Path, names: list[str], texts: TextPreprocessing) -> None:
    """Import the texts with all folds, and send them through the frozen encoder once."""
    given.scratch.mkdir(parents=True, exist_ok=True)
    for name in names:
        store = store_of(given.scratch, name, "texts")
        if not store.exists():
            folds = {fold: folder / f"intent_{name}" / "few_shot_splits" / fold for fold in FOLDS}
            import_texts(texts_of(name, folder, given.scratch), store, texts, splits=folds)
        vectors = store_of(given.scratch, name, "vectors")
        if not vectors.exists():
            embed_store(str(store), Encoder(path=given.encoder), vectors)
        print(f"{name}: {store}, {vectors}", flush=True)


def run_all(given: Given, jobs: list[Job], processes: int) -> list[dict[str, Any]]:
    """All of them, so many at a time."""
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        for done in as_completed([pool.submit(run, given, job) for job in jobs]):
            one = json.loads(done.result().read_text())
            said = f"{one['frozen']:.2f} -> {one['trained']:.2f} ({one['gain']:+.2f}), {one['train_cpu_s']:.0f} CPU s"
            print(f"{one['name']} {one['fold']} {one['split']}, {one['setting']}: {said}", flush=True)
    return [json.loads(job.place(given.scratch).read_text()) for job in jobs]


def results(scratch: Path, split: Split) -> list[dict[str, Any]]:
    """Those that there are."""
    return [json.loads(path.read_text()) for path in sorted((scratch / "results").glob(f"{split}-*.json"))]


def chosen(tried: list[dict[str, Any]], names: list[str]) -> str:
    """The setting with the largest mean gain on validation classes, of those tried on the first folds of each set."""
    wanted = {(name, fold) for name in names for fold in TRIED_FOLDS}
    gains: dict[str, float] = {}
    for setting in {one["setting"] for one in tried}:
        found = {(one["name"], one["fold"]): one["gain"] for one in tried if one["setting"] == setting}
        if wanted <= found.keys():
            gains[setting] = float(np.mean([found[pair] for pair in wanted]))
    if not gains:
        raise SystemExit("no setting was tried on the first folds of all data sets: run `try` first")
    return max(sorted(gains), key=gains.__getitem__)


def over_folds(gains: list[float]) -> tuple[float, float]:
    """The mean of paired differences over folds, and half of its 95 % interval."""
    count = len(gains)
    return float(np.mean(gains)), STUDENT_95[count] * float(np.std(gains, ddof=1)) / count**0.5


def reported(given: Given, names: list[str]) -> dict[str, Any]:
    """All settings tried, the one that was chosen, and what it gave on test classes."""
    tried, tested = results(given.scratch, "meta-val"), results(given.scratch, "meta-test")
    found: dict[str, Any] = {"chosen": chosen(tried, names), "tried": [_short(one) for one in tried], "sets": {}}
    for name in names:
        folds = [one for one in tested if one["name"] == name]
        if len(folds) >= min(STUDENT_95):
            mean, half = over_folds([one["gain"] for one in folds])
            found["sets"][name] = {
                "frozen": round(float(np.mean([one["frozen"] for one in folds])), 2),
                "trained": round(float(np.mean([one["trained"] for one in folds])), 2),
                "gain": round(mean, 2),
                "gain_interval_over_folds": round(half, 2),
                "train_cpu_s": round(sum(one["train_cpu_s"] for one in folds), 1),
                "folds": [_short(one) for one in folds],
            }
            print(f"{name}: {mean:+.2f} +- {half:.2f} over {len(folds)} folds, by {found['chosen']}")
    return found


def _short(one: dict[str, Any]) -> dict[str, Any]:
    rounded = {key: round(one[key], 3) for key in ("frozen", "trained", "gain", "gain_interval_over_episodes")}
    return {key: value for key, value in {**one, **rounded}.items() if key != "experiment"}


def judge_jobs(given: Given, names: list[str], folds: list[str]) -> list[Job]:
    """Those of the chosen setting; test classes that another one was judged on are refused."""
    setting = chosen(results(given.scratch, "meta-val"), names)
    others = {one["setting"] for one in results(given.scratch, "meta-test")} - {setting}
    if others:
        raise SystemExit(f"test classes were judged already, with {', '.join(sorted(others))}: that is done once")
    print(f"chosen on validation classes: {setting}", flush=True)
    return [Job(name, fold, setting, "meta-test") for name in names for fold in folds]


def main() -> None:
    """Do a step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("prepare", "try", "judge", "report"))
    parser.add_argument("folder", type=Path, nargs="?", help="of the data sets; `prepare` alone needs it")
    parser.add_argument("--scratch", type=Path, required=True, help="where stores and results lie")
    parser.add_argument("--encoder", default="", help="folder of the encoder, or its weights")
    parser.add_argument("--tokenizer", help="its tokenizer, where it is not in that folder")
    parser.add_argument("--no-special", action="store_true", help="texts without the tokens that are put around them")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=["banking77", "hwu64"])
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS), help="to try")
    parser.add_argument("--folds", nargs="+", choices=FOLDS, help="by default 01 and 02 to try, all to judge")
    parser.add_argument("--set", action="append", default=[], help="in every recipe, such as num_steps=600")
    parser.add_argument("--val-episodes", type=int, default=300)
    parser.add_argument("--test-episodes", type=int, default=600)
    parser.add_argument("--processes", type=int, default=2, help="folds at a time, a thread each")
    parser.add_argument("--out", type=Path, help="where `report` writes its record")
    said = parser.parse_args()
    given = Given(said.scratch, said.encoder, tuple(said.set), said.val_episodes, said.test_episodes)
    if said.step == "prepare":
        texts = TextPreprocessing(tokenizer=read_tokenizer(said.tokenizer or said.encoder), special=not said.no_special)
        prepare(given, said.folder, said.sets, texts)
    elif said.step == "try":
        folds = said.folds or TRIED_FOLDS
        jobs = [Job(name, fold, one, "meta-val") for one in said.settings for fold in folds for name in said.sets]
        run_all(given, jobs, said.processes)
    elif said.step == "judge":
        run_all(given, judge_jobs(given, said.sets, said.folds or list(FOLDS)), said.processes)
    else:
        found = reported(given, said.sets)
        text = json.dumps(found, indent=2) + "\n"
        said.out.write_text(text) if said.out else print(text)


if __name__ == "__main__":
    main()
