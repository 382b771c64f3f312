"""Texts as tokens, by the tokenizer that a learner keeps."""

import json
import sys

import numpy as np
import pytest
import torch

from metaray.data.preprocessing import PREPROCESSINGS, Preprocessing, TextPreprocessing
from metaray.data.preprocessing.text import TextCut, _opened
from metaray.errors import InputError
from metaray.imports import dump_kind, parse_kind
from tests.models.encoders.tiny import SPECIAL, WORDS, tokenizer

TEXTS = TextPreprocessing(tokenizer=tokenizer(), longest=5)
CLS, SEP = SPECIAL.index("[CLS]"), SPECIAL.index("[SEP]")


def number(word: str) -> int:
    return len(SPECIAL) + WORDS.index(word)


def test_tokens() -> None:
    found = TEXTS.read(["Play music", "rain"])
    assert found["lengths"].tolist() == [4, 3] and found["values"].dtype == np.int32
    assert found["values"][0, :4].tolist() == [CLS, number("play"), number("music"), SEP]
    assert found["values"][1].tolist() == [CLS, number("rain"), SEP, 0, 0, 0, 0, 0]
    x = TEXTS.normalize({name: torch.from_numpy(part) for name, part in found.items()})
    assert x["tokens"].dtype == torch.int64 and x["mask"].sum(1).tolist() == [4, 3]


def test_a_text_that_is_too_long_is_cut_and_said() -> None:
    with pytest.warns(TextCut, match=r"1 text has more than 5 tokens \(of 2\); of these the first 5 count"):
        found = TEXTS.read(["rain", "play a song now please"])
    assert found["values"][1, :5].tolist() == [CLS, number("play"), number("a"), number("song"), SEP]
    assert TEXTS.encoded(["play a song now"]).cut == [0] and TEXTS.encoded(["play a song"]).cut == []


def test_cells_of_which_nothing_is_seen_are_told_with_their_line() -> None:
    with pytest.raises(InputError, match="^line 1: query is empty$"):
        TEXTS.from_cells([["play"], ["\u200b"]], ["query"], lambda i: f"line {i}")


def test_without_the_tokens_around() -> None:
    bare = TextPreprocessing(tokenizer=tokenizer(), longest=5, special=False)
    assert bare.encoded(["play a song"]).rows[0].tolist() == [number("play"), number("a"), number("song")]


def test_padding_and_cutting_of_the_file_do_not_count() -> None:
    """Files have what their last user set."""
    tree = json.loads(tokenizer()) | {
        "truncation": {"max_length": 3, "strategy": "LongestFirst", "stride": 0, "direction": "Right"},
        "padding": {
            **{"strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": None},
            **{"pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"},
        },
    }
    assert TextPreprocessing(tokenizer=json.dumps(tree)).read("play a song")["lengths"].tolist() == [5]


def test_tokens_are_not_drawn() -> None:
    """A file may say that its merges are left out at random, which is for training alone."""
    letters = {**{name: place for place, name in enumerate(SPECIAL)}, "a": 4, "b": 5, "ab": 6, "abab": 7}
    model = {"type": "BPE", "dropout": 0.5, "vocab": letters, "merges": [["a", "b"], ["ab", "ab"]]}
    texts = TextPreprocessing(tokenizer=json.dumps(json.loads(tokenizer()) | {"model": model}))
    assert {tuple(texts.encoded(["abab"]).rows[0]) for _ in range(20)} == {(CLS, 7, SEP)}


@pytest.mark.parametrize("kind", ["WordLevel", "WordPiece", "Unigram"])
def test_a_tokenizer_without_a_token_for_unknown_words(kind: str) -> None:
    names = [*SPECIAL, *WORDS]
    vocabulary = {name: place for place, name in enumerate(names)}
    model: dict[str, object] = {"type": kind, "vocab": vocabulary, "unk_token": "<gone>"}
    if kind == "WordPiece":
        model |= {"continuing_subword_prefix": "##", "max_input_chars_per_word": 100}
    if kind == "Unigram":
        model = {"type": kind, "vocab": [[name, -1.0] for name in names], "unk_id": None}
    texts = TextPreprocessing(tokenizer=json.dumps(json.loads(tokenizer()) | {"model": model}))
    with pytest.raises(InputError, match="the tokenizer can't read 'zzz': "):
        texts.read(["zzz"])


def test_texts_with_nothing_in_them() -> None:
    for blank in ("", " \n", "\u200b\ufeff", "\x00"):
        with pytest.raises(InputError, match="text 1 is empty"):
            TEXTS.read(["rain", blank])
    tree = json.loads(tokenizer()) | {"normalizer": {"type": "Replace", "pattern": {"String": "!"}, "content": ""}}
    with pytest.raises(InputError, match="text 1: the tokenizer finds nothing in '!!'"):
        TextPreprocessing(tokenizer=json.dumps(tree)).read(["rain", "!!"])
    assert TEXTS.encoded(["qqq"]).nothing == [], "an unknown word is something"


def test_it_is_kept_whole() -> None:
    tree = json.loads(json.dumps(dump_kind(TEXTS, PREPROCESSINGS)))
    assert parse_kind(tree, PREPROCESSINGS, Preprocessing, what="preprocessing") == TEXTS
    assert tree["kind"] == "text" and "tokenizer" not in repr(TEXTS) and TEXTS.vocabulary == len(SPECIAL) + len(WORDS)


def test_what_it_refuses() -> None:
    with pytest.raises(InputError, match="text 1 is empty"):
        TEXTS.read(["play", " "])
    with pytest.raises(InputError, match="text 0 is of type int"):
        TEXTS.read([3])
    with pytest.raises(InputError, match="has no model with a vocabulary"):
        TextPreprocessing.parse({"tokenizer": "{}"}, where="text")
    with pytest.raises(InputError, match="does not give each token a number"):
        TextPreprocessing.parse({"tokenizer": '{"model": {"vocab": {"a": "b"}}}'}, where="text")
    pieces = TextPreprocessing(tokenizer='{"model": {"type": "Unigram", "vocab": [["a", -1.0], ["b", -2.0]]}}')
    assert pieces.vocabulary == 2
    strange = TextPreprocessing(tokenizer='{"model": {"type": "Nothing", "vocab": {"a": 0}}}')
    with pytest.raises(InputError, match="the tokenizer can't be read"):
        strange.read("a")


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    _opened.cache_clear()
    with pytest.raises(InputError, match=r"pip install 'metaray\[text\]'"):
        TEXTS.read("play")
    assert len(TEXTS.probe(3)["lengths"]) == 3, "what is stored needs no tokenizer"


def test_what_the_nearest_neighbour_compares() -> None:
    found = TEXTS.read(["play play", "play"])
    x = TEXTS.normalize({name: torch.from_numpy(part) for name, part in found.items()})
    counts = TEXTS.comparable(x)
    assert counts.shape == (2, TEXTS.vocabulary) and torch.allclose(counts.norm(dim=1), torch.ones(2))
    assert float(counts[0, number("play")]) == pytest.approx(2 / 6**0.5)
