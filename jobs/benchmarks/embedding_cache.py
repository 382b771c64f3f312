"""Episodes a second on texts, through a frozen encoder at each step, and on vectors that it made once.

    python -m jobs.benchmarks.embedding_cache FOLDER --encoder ENCODER --out docs/intents/cache.json

FOLDER holds `intent_banking77`, as for `jobs.benchmarks.intents`. A linear head behind the encoder is trained by MAML;
on vectors it is the whole network. One thread, 5-way 1-shot, 5 queries a class. `data embed` is counted beside, and so
is what a baseline costs that sends each text through the encoder once.
"""

import argparse
import json
import tempfile
from pathlib import Path
from time import process_time
from typing import Any

import torch

from jobs.benchmarks.fidelity import measure, planned
from jobs.benchmarks.intents import FOLDS, texts_of
from metaray.algorithms import MAML
from metaray.data import ClassStore
from metaray.data.encoder_folder import read_tokenizer
from metaray.data.preprocessing import TextPreprocessing
from metaray.data.texts.importing import import_texts
from metaray.episodes.episode import EpisodeSpec
from metaray.experiment import Evaluation, Experiment, Optimizer
from metaray.models import MLP, Encoder, Model
from metaray.models.encoders.embedding import embed_store
from metaray.training.rivals import Untrained, fresh, judged_untrained, rivals_of

META_BATCH, EPISODES = 4, 600
DEVICE = torch.device("cpu")


def experiment_on(store: Path, model: Model) -> Experiment:
    """A linear head, adapted in one step."""
    return Experiment(
        name="intents",
        source=ClassStore(path=str(store), split=FOLDS[0]),
        episodes=EpisodeSpec(ways=5, shots=1, queries=5),
        model=model,
        algorithm=MAML(inner_lr=1.0, inner_steps=1),
        optimizer=Optimizer(outer_lr=1e-3),
        meta_batch_size=META_BATCH,
        num_steps=100,
        evaluation=Evaluation(every=0, val_episodes=EPISODES, test_episodes=EPISODES),
    )


def episodes_per_s(experiment: Experiment) -> float:
    """Of training, of one core."""
    return META_BATCH / measure(planned(experiment, 10**6), DEVICE).step_s


def baselines(experiment: Experiment) -> dict[str, dict[str, float]]:
    """Of the test classes: percent, and seconds of one core for all episodes."""
    found = {}
    for name in rivals_of(experiment.source, experiment.model):
        began = process_time()
        rival = Untrained.of(name, experiment.source, lambda: fresh(experiment.model, experiment.source, 0))
        scores = judged_untrained(rival, experiment, "meta-test", device=DEVICE)
        percent = {"percent": 100 * scores.estimate.mean, "interval": 100 * scores.estimate.half_width}
        found[name] = {key: round(value, 2) for key, value in {**percent, "cpu_s": process_time() - began}.items()}
    return found


def main() -> None:
    """Measure and write the record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--encoder", required=True)
    parser.add_argument("--set", default="banking77", dest="name")
    parser.add_argument("--called", default="all-MiniLM-L6-v2")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(1)
    encoder = Encoder(path=given.encoder)
    texts = TextPreprocessing(tokenizer=read_tokenizer(given.encoder))
    with tempfile.TemporaryDirectory() as scratch:
        store, vectors = Path(scratch, "texts.arrow"), Path(scratch, "vectors.arrow")
        folds = {fold: given.folder / f"intent_{given.name}" / "few_shot_splits" / fold for fold in FOLDS}
        import_texts(texts_of(given.name, given.folder, Path(scratch)), store, texts, splits=folds)
        began = process_time()
        report = embed_store(str(store), encoder, vectors)
        embedded_s = process_time() - began
        plans = {"texts": experiment_on(store, encoder), "vectors": experiment_on(vectors, MLP(hidden=()))}
        record: dict[str, Any] = {
            "encoder": given.called,
            "encoder_sha256": encoder.sha256,
            "set": given.name,
            "examples": report.examples,
            "embed_cpu_s": round(embedded_s, 1),
            "episodes_per_s": {name: round(episodes_per_s(plan), 2) for name, plan in plans.items()},
            "baselines": {name: baselines(plan) for name, plan in plans.items()},
            "torch": torch.__version__,
        }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(record, indent=2) + "\n")
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
