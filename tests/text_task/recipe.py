"""What the test of texts trains: a small data set of intents, made up from words, and a run of under a second."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from metaray import MAML, ClassStore, Custom, EpisodeSpec, Evaluation, Experiment, write_class_store
from metaray.data.draws import Split
from metaray.optimizers import Adam
from tests.text_task.words import Words


class Uncompared(Words):
    """Words that no nearest neighbour compares."""

    kind: ClassVar[str] = "uncompared"
    compared: ClassVar[str | None] = None


TOPICS = {
    "weather": "rain sun snow wind forecast",
    "music": "song album band melody play",
    "banking": "account balance transfer card money",
    "travel": "flight hotel ticket luggage airport",
    "food": "recipe cook pizza bake dinner",
    "alarm": "wake alarm clock snooze morning",
    "sports": "match goal team score league",
    "health": "doctor pill fever headache pharmacy",
    "light": "lamp dim bright bulb switch",
    "mail": "letter inbox send reply attachment",
    "movies": "film actor cinema trailer scene",
    "taxi": "cab driver ride fare pickup",
}
FILLERS = ["please", "can", "you", "the", "a", "my", "tell", "me", "what", "is", "for", "now", "today"]
SPLITS: dict[Split, list[str]] = {
    "meta-train": list(TOPICS)[:6],
    "meta-val": list(TOPICS)[6:9],
    "meta-test": list(TOPICS)[9:],
}


def texts(each: int = 12, seed: int = 0) -> dict[str, list[str]]:
    """Each of 2 to 8 words, one or two of which are about the topic."""
    generator = np.random.default_rng(seed)

    def text(topic: str) -> str:
        words = generator.choice(topic.split(), generator.integers(1, 3), replace=False).tolist()
        words += generator.choice(FILLERS, generator.integers(1, 7)).tolist()
        return " ".join(generator.permutation(words))

    return {name: [text(topic) for _ in range(each)] for name, topic in TOPICS.items()}


def store(path: Path, examples: Mapping[str, Sequence[str]], splits: Any = SPLITS, words: Words | None = None) -> str:
    """A store of texts."""
    write_class_store(path, examples, splits, words or Words())
    return str(path)


def experiment(path: str, **changes: Any) -> Experiment:
    """A run on it; keyword arguments replace fields."""
    fields: dict[str, Any] = {
        "name": "texts",
        "source": ClassStore(path=path),
        "episodes": EpisodeSpec(ways=3, shots=2, queries=3),
        "model": Custom(path="tests.text_task.encoder:Encoder"),
        "algorithm": MAML(inner_lr=0.5),
        "optimizer": Adam(outer_lr=2e-2),
        "meta_batch_size": 4,
        "num_steps": 12,
        "evaluation": Evaluation(every=6, val_episodes=20, test_episodes=40),
    }
    return Experiment(**fields | changes)
