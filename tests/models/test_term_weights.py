"""TF-IDF of tokens."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from metaray.data import ClassStore
from metaray.data.preprocessing import TextPreprocessing
from metaray.data.texts.importing import import_texts
from metaray.models.term_weights import around, document_frequencies, fitted
from tests.models.encoders.tiny import SPECIAL, WORDS, tokenizer

TEXTS = TextPreprocessing(tokenizer=tokenizer(), longest=12)
LINES = {"play": ["play a song", "play play rain"], "money": ["money now", "my money"], "sun": ["sun snow wind"] * 2}


@pytest.fixture
def source(tmp_path: Path) -> ClassStore:
    rows = [{"text": text, "label": label} for label, texts in LINES.items() for text in texts]
    file = tmp_path / "texts.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    folder = tmp_path / "splits"
    folder.mkdir()
    for part, names in {"train": "play\nmoney", "val": "", "test": "sun"}.items():
        (folder / f"{part}.txt").write_text(names)
    import_texts([file], tmp_path / "texts.arrow", TEXTS, splits=folder)
    return ClassStore(path=str(tmp_path / "texts.arrow"))


def vectors_of(source: ClassStore, texts: list[str]) -> np.ndarray:
    compact = {name: torch.from_numpy(part) for name, part in TEXTS.read(texts).items()}
    found: np.ndarray = fitted(source, TEXTS)(TEXTS.normalize(compact)).numpy()
    return found


def test_by_hand(source: ClassStore) -> None:
    """Meta-train has 4 texts: "play" is in 2 of them, "rain" in 1, "sun", of meta-test, in none."""
    place = {word: len(SPECIAL) + WORDS.index(word) for word in WORDS}
    play, rain, sun = (np.log(5 / (1 + count)) + 1 for count in (2, 1, 0))
    found = vectors_of(source, ["play rain play", "sun"])
    expected = np.zeros_like(found)
    expected[0, [place["play"], place["rain"]]] = np.array([2 * play, rain]) / np.hypot(2 * play, rain)
    expected[1, place["sun"]] = 1
    np.testing.assert_allclose(found, expected, atol=1e-6)
    weights = fitted(source, TEXTS).weights
    assert weights[place["sun"]] == pytest.approx(sun) and weights[place["sun"]] == weights.max()
    assert [float(weights[SPECIAL.index(name)]) for name in ("[CLS]", "[SEP]")] == [0, 0]


def test_nothing_of_the_judged_classes_is_counted(source: ClassStore, tmp_path: Path) -> None:
    before = fitted(source, TEXTS).weights
    file = tmp_path / "more.jsonl"
    rows = [{"text": text, "label": label} for label, texts in LINES.items() for text in texts]
    rows += [{"text": "sun rain play money", "label": "sun"}] * 9
    file.write_text("\n".join(map(json.dumps, rows)))
    import_texts([file], tmp_path / "more.arrow", TEXTS, splits=tmp_path / "splits")
    assert torch.equal(fitted(ClassStore(path=str(tmp_path / "more.arrow")), TEXTS).weights, before)


def test_document_frequencies_count_texts() -> None:
    values = np.array([[3, 3, 1, 0], [1, 2, 0, 0]], dtype=np.int32)
    assert document_frequencies(values, np.array([3, 2]), 5).tolist() == [0, 2, 1, 1, 0]


def test_what_is_put_around_texts() -> None:
    assert around(TEXTS) == [SPECIAL.index("[CLS]"), SPECIAL.index("[SEP]")]
    tree = json.loads(tokenizer())
    tree["added_tokens"] = [
        {"id": 0, "content": "[PAD]", "special": True},
        {"id": 1, "content": "[UNK]", "special": True},
    ]
    tree["post_processor"] = {"type": "BertProcessing", "cls": ["[CLS]", 2], "sep": ["[SEP]", 3]}
    unknown = tree["model"].get("unk_token") == "[UNK]"
    assert around(TextPreprocessing(tokenizer=json.dumps(tree))) == ([0, 2, 3] if unknown else [0, 1, 2, 3])
    tree["model"] = {"type": "Unigram", "vocab": [[name, -1.0] for name in SPECIAL], "unk_id": 1}
    assert around(TextPreprocessing(tokenizer=json.dumps(tree))) == [0, 2, 3]


@pytest.mark.slow
def test_as_scikit_learn_has_it(source: ClassStore) -> None:
    reference = pytest.importorskip("sklearn.feature_extraction.text")
    trained = [*LINES["play"], *LINES["money"]]
    vectorizer = reference.TfidfVectorizer(vocabulary=WORDS, token_pattern=r"(?u)\b\w+\b")
    asked = ["play rain play", "my my money song", "sun wind"]
    expected = vectorizer.fit(trained).transform(asked).toarray()
    np.testing.assert_allclose(vectors_of(source, asked)[:, len(SPECIAL) :], expected, atol=1e-6)
