"""Texts from files, as a store of tokens."""

import csv
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metaray.data import ClassStore
from metaray.data.importing import ImportReport
from metaray.data.preprocessing import TextPreprocessing
from metaray.data.ragged import Ragged
from metaray.data.store_file import read_store
from metaray.data.texts.importing import import_texts
from metaray.data.texts.rows import Columns, read_rows
from metaray.errors import InputError
from tests.models.encoders.tiny import tokenizer

TEXTS = TextPreprocessing(tokenizer=tokenizer(), longest=6)
ROWS = [("play a song", "music"), ("rain and sun", "weather"), ("my money", "bank"), ("the band", "music")]
WHOLE = (1.0, 0.0, 0.0)


def table(path: Path, rows: Any = ROWS, header: tuple[str, ...] = ("text", "label"), separator: str = ",") -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=separator).writerows([header, *rows])
    return path


def lines(path: Path, rows: Any = ROWS, names: tuple[str, ...] = ("sentence", "label")) -> Path:
    path.write_text("".join(json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in rows))
    return path


def folders(path: Path, rows: Any = ROWS) -> Path:
    for i, (text, label) in enumerate(rows):
        (path / label).mkdir(parents=True, exist_ok=True)
        (path / label / f"{i}.txt").write_text(text)
    return path


def imported(paths: Path | list[Path], out: Path, **options: Any) -> ImportReport:
    options = {"splits": WHOLE} | options
    return import_texts(paths if isinstance(paths, list) else [paths], out, TEXTS, **options)


def test_files_of_all_kinds_make_the_same_store(tmp_path: Path) -> None:
    zipped = tmp_path / "texts.zip"
    with zipfile.ZipFile(zipped, "w") as archive:
        for i, (text, label) in enumerate(ROWS):
            archive.writestr(f"{label}/{i}.txt", text)
    sources = [
        table(tmp_path / "a.csv"),
        table(tmp_path / "b.csv", separator="\t"),
        table(tmp_path / "c.tsv", [(label, text) for text, label in ROWS], ("Category", "Utterance"), "\t"),
        lines(tmp_path / "d.jsonl"),
        folders(tmp_path / "folders"),
        zipped,
    ]
    found = set()
    for source in sources:
        report = imported(source, tmp_path / "out.arrow")
        assert (report.classes, report.examples, report.schemes) == (3, 4, ("default",))
        found.add(read_store(tmp_path / "out.arrow", verify=True).meta.fingerprint)
    assert len(found) == 1
    store = read_store(tmp_path / "out.arrow")
    assert store.meta.class_names == ("bank", "music", "weather") and store.meta.counts == (1, 2, 1)
    assert isinstance(store.examples, Ragged) and store.examples.values.dtype == np.int32
    assert store.examples[1].tolist() == TEXTS.encoded(["play a song"]).rows[0].tolist()
    assert ClassStore(path=str(tmp_path / "out.arrow")).preprocessing == TEXTS


def test_what_is_said(tmp_path: Path) -> None:
    rows = [
        *ROWS,
        ("play a song", "music"),
        ("my money", "music"),
        ("play a song now please", "weather"),
        (" ", "bank"),
    ]
    with pytest.raises(
        InputError, match=r"a.csv, line 9: the text is empty \(1 in all\); --empty skip leaves such out"
    ):
        imported(table(tmp_path / "a.csv", rows), tmp_path / "out.arrow")
    report = imported(tmp_path / "a.csv", tmp_path / "out.arrow", empty="skip")
    assert report.examples == 7 and list(report.notes) == [
        f"left out: 1 empty text, the first at {tmp_path / 'a.csv'}, line 9",
        "1 text has more than 6 tokens (of 7); of these the first 6 count",
        "1 class has one text only (bank): a task needs one to learn from and one to ask, so has none",
        "1 text stands more than once in its class, to the letter: a task may ask what it learned from",
        "1 text stands in more than one class ('my money' in bank, music)",
    ]


def test_texts_in_which_nothing_is_to_be_seen(tmp_path: Path) -> None:
    path = table(tmp_path / "a.csv", [*ROWS, ("\u200b", "bank"), ("\ufeff \x00", "bank")])
    with pytest.raises(InputError, match=r"a.csv, line 6: the text is empty \(2 in all\)"):
        imported(path, tmp_path / "out.arrow")
    assert imported(path, tmp_path / "out.arrow", empty="skip").examples == len(ROWS)
    tree = json.loads(tokenizer()) | {
        "normalizer": {"type": "Replace", "pattern": {"String": "my money"}, "content": ""}
    }
    with pytest.raises(InputError, match="a.csv, line 4: the tokenizer finds nothing in 'my money'"):
        texts = TextPreprocessing(tokenizer=json.dumps(tree))
        import_texts([path], tmp_path / "out.arrow", texts, empty="skip", splits=WHOLE)


def test_splits(tmp_path: Path) -> None:
    out = tmp_path / "out.arrow"

    def schemes(*paths: Path, **options: Any) -> dict[str, Any]:
        imported(list(paths), out, **options)
        meta = read_store(out).meta
        return {
            name: [[meta.class_names[i] for i in ids] for ids in parts.values()] for name, parts in meta.schemes.items()
        }

    named = [
        lines(tmp_path / f"{name}.jsonl", [row]) for name, row in zip(("train", "valid", "test"), ROWS, strict=False)
    ]
    assert schemes(*named, splits=None) == {"default": [["music"], ["weather"], ["bank"]]}
    assert schemes(*named) == {"default": [["bank", "music", "weather"], [], []]}
    mixed = [table(tmp_path / "train.csv"), table(tmp_path / "test.csv", ROWS[:1])]
    report = imported(mixed, out)
    assert report.examples == 5 and "although they are called like splits: 1 of 3 classes are in" in report.notes[0]
    rows = [(*row, split) for row, split in zip(ROWS, ("train", "dev", "test", "train"), strict=True)]
    columned = table(tmp_path / "c.csv", rows, ("text", "label", "split"))
    assert schemes(columned, splits=None) == {"default": [["music"], ["weather"], ["bank"]]}
    for i, order in enumerate((("music", "bank", "weather"), ("bank", "weather", "music"))):
        (tmp_path / f"fold{i}").mkdir()
        for split, name in zip(("train", "valid", "test"), order, strict=True):
            (tmp_path / f"fold{i}" / f"labels.{split}.txt").write_text(name + "\n")
    folds = {f"0{i}": tmp_path / f"fold{i}" for i in (0, 1)}
    found = schemes(columned, splits=folds)
    assert found == {"00": [["music"], ["bank"], ["weather"]], "01": [["bank"], ["weather"], ["music"]]}
    (tmp_path / "fold0" / "more.valid.txt").write_text("music\n")
    with pytest.raises(InputError, match="labels.valid.txt and more.valid.txt may both be the classes of meta-val"):
        schemes(columned, splits=folds)


def test_split_folders(tmp_path: Path) -> None:
    for split, row in zip(("train", "val", "test"), ROWS, strict=False):
        folders(tmp_path / "data" / split, [row])
    (tmp_path / "data" / "train" / "music" / "notes.md").write_text("nothing")
    report = imported(tmp_path / "data", tmp_path / "out.arrow", splits=None)
    assert report.notes[0] == "passed over: 1 file that are no .txt (train/music/notes.md)"
    meta = read_store(tmp_path / "out.arrow").meta
    assert [[meta.class_names[i] for i in ids] for ids in meta.schemes["default"].values()] == [
        ["music"],
        ["weather"],
        ["bank"],
    ]


def test_groups(tmp_path: Path) -> None:
    rows = [(text, label, "fun" if label == "music" else "life") for text, label in ROWS]
    path = table(tmp_path / "a.csv", rows, ("text", "label", "domain"))
    imported(path, tmp_path / "out.arrow", columns=Columns(group="domain"))
    groups = read_store(tmp_path / "out.arrow").meta.groups
    assert groups is not None and groups.names == ("life", "fun", "life")
    rows[3] = ("the band", "music", "life")
    table(path, rows, ("text", "label", "domain"))
    with pytest.raises(InputError, match=r"line 5: the class 'music' has the group 'life', but 'fun' in .*line 2"):
        imported(path, tmp_path / "out.arrow", columns=Columns(group="domain"))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (
            "a.csv",
            "text,kind\na,b\n",
            r"a.csv: no column of the label is found; its columns are 'text', 'kind': give --lab",
        ),
        ("a.csv", "text,label\na,b,c\n", "a.csv, line 2: 3 cells in a table of 2 columns"),
        ("a.csv", "text,label\na, \n", "a.csv, line 2: 'label' is '', not a label"),
        ("a.csv", "text,label\n", "a.csv: holds no texts"),
        ("a.csv", "text,label,split\na,b,later\n", "line 2: the split 'later' is none of train, val and test"),
        ("a.csv", f"label,text\n{'word ' * 60},b\n", "has 299 letters; is this the column of texts"),
        ("a.jsonl", '{"text": "a"\n', "a.jsonl, line 1: not a line of JSON"),
        ("a.jsonl", '["a", "b"]\n', "a.jsonl, line 1: not a JSON object"),
        ("a.jsonl", '{"text": ["a"], "label": "b"}\n', r"line 1: 'text' is \['a'\], not a text"),
        ("a.jsonl", '{"text": "a", "label": "b", "text": "c"}\n', "line 1: not a line of JSON: the key 'text' comes"),
        ("a.jsonl", '{"text": "a\\ud800", "label": "b"}\n', "line 1: 'text' holds half of a surrogate pair"),
        ("a.csv", "text,label\n\u200b,b\n", "a.csv, line 2: the text is empty"),
        ("a.csv", "text,other\na,b\n", "no column of the label is found"),
        ("a.bin", "text,label", "no such folder or zip or tar archive|not a zip|neither"),
    ],
)
def test_what_is_refused(name: str, content: str, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=said):
        imported(tmp_path / name, tmp_path / "out.arrow")
    assert not (tmp_path / "out.arrow").exists()


def test_encodings_and_columns(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("text,label\ncaf\xe9,b\n".encode("cp1252"))
    with pytest.raises(InputError, match="not a text in UTF-8; --encoding names another"):
        read_rows(path, Columns(), None)
    assert read_rows(path, Columns(), "cp1252").rows[0].text == "café"
    with pytest.raises(InputError, match="unknown column 'words'"):
        read_rows(path, Columns(text="words"), "cp1252")
    with pytest.raises(InputError, match="columns are named, but this is no file of"):
        read_rows(folders(tmp_path / "folder"), Columns(text="words"), None)
    (tmp_path / "folder" / "stray.txt").write_text("a")
    with pytest.raises(InputError, match="'stray.txt' lies beside the class folders"):
        read_rows(tmp_path / "folder", Columns(), None)


def test_one_column_is_not_both(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'label' is the column of the texts, and can't be that of their labels"):
        read_rows(table(tmp_path / "a.csv"), Columns(text="label"), None)


def test_texts_as_long_as_books(tmp_path: Path) -> None:
    """Longer than the cells that Python's reader takes by itself."""
    rows = [*ROWS, ("play a song " * 20_000, "music")]
    note = imported(table(tmp_path / "a.csv", rows), tmp_path / "out.arrow").notes[0]
    assert note == "1 text has more than 6 tokens (of 5); of these the first 6 count"
    assert csv.field_size_limit() == 128 << 10


def test_texts_of_which_the_tokenizer_knows_nothing(tmp_path: Path) -> None:
    rows = [*ROWS, ("\u266b", "music"), ("quux", "music")]
    note = imported(table(tmp_path / "a.csv", rows), tmp_path / "out.arrow").notes[0]
    assert note.startswith("2 texts hold nothing that the tokenizer knows ('\u266b' in ") and "line 6" in note
    tree = json.loads(tokenizer()) | {"normalizer": {"type": "StripAccents"}}
    strip = TextPreprocessing(tokenizer=json.dumps(tree))
    rows[-1] = ("\u0301", "music")
    with pytest.raises(InputError, match=r"line 7: the tokenizer finds nothing in '.*'; leave it out"):
        import_texts([table(tmp_path / "a.csv", rows)], tmp_path / "out.arrow", strip, splits=WHOLE)
    with pytest.raises(InputError, match="text 1: the tokenizer finds nothing in"):
        strip.read(["play", "\u0301"])
    for text, said in (("\u200b", "is empty"), ("\ud800", "holds half of a surrogate pair")):
        with pytest.raises(InputError, match=said):
            strip.read(["play", text])


def test_what_lies_at_the_place_of_the_store(tmp_path: Path) -> None:
    """An older store is replaced, nothing else."""
    source, out = table(tmp_path / "a.csv"), tmp_path / "out.arrow"
    for _ in range(2):
        imported(source, out)
    with pytest.raises(InputError, match="a.csv: is what the store would be made of, and would be lost"):
        imported(source, source)
    other = table(tmp_path / "b.csv")
    with pytest.raises(InputError, match="b.csv: something else than a store lies there"):
        imported(source, other)
    assert other.read_text() == source.read_text()


def test_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    """Else the last of them would be taken without a word."""
    path = table(tmp_path / "a.csv", [("one", "other", "a")], ("text", "text", "label"))
    with pytest.raises(InputError, match="line 1: several columns are called 'text'"):
        read_rows(path, Columns(), None)
    table(path, [("one", "other", "a", "more")], ("text", "note", "label", "note"))
    assert read_rows(path, Columns(), None).rows[0].text == "one"
