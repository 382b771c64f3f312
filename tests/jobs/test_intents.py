"""The measurement of frozen encoders on intents, on a tiny data set of its form."""

import json
import sys
from pathlib import Path

import pytest

from jobs.benchmarks import intents
from metaray.data.preprocessing import TextPreprocessing
from tests.models.encoders.tiny import WORDS, bert_folder


def home(folder: Path) -> Path:
    """Fifteen intents of twelve texts, in five folds."""
    own = folder / "intent_hwu64"
    own.mkdir(parents=True)
    names = WORDS[:15]
    lines = [{"sentence": f"{name} {name} {word}", "label": name} for name in names for word in WORDS[:12]]
    (own / "full.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for place, fold in enumerate(intents.FOLDS):
        (own / "few_shot_splits" / fold).mkdir(parents=True)
        turned = names[place:] + names[:place]
        for split, start in (("train", 0), ("valid", 5), ("test", 10)):
            text = "\n".join(turned[start : start + 5])
            (own / "few_shot_splits" / fold / f"labels.{split}.txt").write_text(text)
    return folder


def test_it_measures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    encoder, out = bert_folder(tmp_path / "encoder"), tmp_path / "record" / "frozen.json"
    data = home(tmp_path / "data")
    asked = [str(data), "--encoder", encoder, "--sets", "hwu64", "--episodes", "4", "--out", str(out)]
    # Tiny encoders take 16 tokens, not 128.
    monkeypatch.setattr(intents, "TextPreprocessing", lambda **fields: TextPreprocessing(longest=8, **fields))
    monkeypatch.setattr(sys, "argv", ["intents", *asked])
    intents.main()
    record = json.loads(out.read_text())
    found = record["sets"]["hwu64"]
    assert (found["classes"], found["texts"]) == (15, 180) and len(found["1-shot"]["folds"]) == 5
    assert found["5-shot"]["plain_script"] == 92.65 and found["1-shot"]["accuracy"] > 30, "chance is 20"
    assert "hwu64 1-shot: " in capsys.readouterr().out
    assert found["tf_idf"]["5-shot"]["accuracy"] > 90, "each text has the name of its class"
    monkeypatch.setattr(sys, "argv", ["intents", *asked, "--only", "tf_idf"])
    monkeypatch.setattr(intents, "embed_store", None)
    intents.main()
    again = json.loads(out.read_text())["sets"]["hwu64"]
    assert again == found | {"import_cpu_s": again["import_cpu_s"]}, "the same, and the encoder's stay"


def test_the_forms_of_the_data_sets(tmp_path: Path) -> None:
    (tmp_path / "intent_clinc150").mkdir()
    parts = {part: [[f"a {part}", "b"]] for part in ("train", "val", "test", "oos_train")}
    (tmp_path / "intent_clinc150" / "data_full.json").write_text(json.dumps(parts))
    (made,) = intents.texts_of("clinc150", tmp_path, tmp_path)
    rows = [json.loads(line) for line in made.read_text().splitlines()]
    assert rows == [{"text": f"a {part}", "label": "b"} for part in ("train", "val", "test")]
    assert [path.name for path in intents.texts_of("banking77", tmp_path, tmp_path)] == ["train.csv", "test.csv"]
