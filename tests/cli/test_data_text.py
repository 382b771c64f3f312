"""`metaray data import text` and `metaray data embed`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.models.encoders.tiny import bert_folder

TOPICS = {
    **{"music": "play a song", "bank": "my money", "weather": "rain and sun", "cards": "card please"},
    **{"band": "the band", "album": "album now", "snow": "snow wind", "transfer": "transfer balance"},
}


def rows(path: Path) -> Path:
    lines = [f"{text} {word},{label}" for label, text in TOPICS.items() for word in ("now", "please", "the", "a")]
    path.write_text("text,label\n" + "\n".join(lines) + "\n")
    return path


def test_import(command: Callable[..., Any], tmp_path: Path) -> None:
    folder, source, out = bert_folder(tmp_path / "encoder"), rows(tmp_path / "a.csv"), tmp_path / "out.arrow"
    said = command("data", "import", "text", source, "--out", out, "--tokenizer", folder, "--longest", "6")
    assert said.code == 0, said.err
    assert said.out.splitlines()[0] == f"wrote {out}: 8 classes, 32 texts, splits default"
    assert "splits default: 5 / 1 / 2 classes for meta-train, meta-val, meta-test" in said.err
    (tmp_path / "fold").mkdir()
    for split, names in (("train", [*TOPICS][:4]), ("val", [*TOPICS][4:6]), ("test", [*TOPICS][6:])):
        (tmp_path / "fold" / f"{split}.txt").write_text("\n".join(names))
    more = ("--splits", f"one={tmp_path / 'fold'}")
    said = command("data", "import", "text", source, "--out", out, "--tokenizer", folder, *more)
    assert said.code == 0 and said.out.splitlines()[0].endswith("splits one")
    told = command("data", "describe", out, "--ways", "2")
    assert told.code == 0 and "8 classes, 32 examples of shape (any)" in told.out
    twice = command("data", "import", "text", source, "--out", out, "--tokenizer", folder, *more, *more)
    assert twice.code == 2 and "there is a scheme 'one' already" in twice.err
    none = command("data", "import", "text", source, "--out", out, "--tokenizer", tmp_path / "nowhere")
    assert none.code == 2 and "no such tokenizer" in none.err


def test_embed(command: Callable[..., Any], tmp_path: Path) -> None:
    folder, source, texts = bert_folder(tmp_path / "encoder"), rows(tmp_path / "a.csv"), tmp_path / "texts.arrow"
    assert command("data", "import", "text", source, "--out", texts, "--tokenizer", folder, "--longest", "6").code == 0
    out = tmp_path / "vectors.arrow"
    said = command("data", "embed", texts, "--encoder", folder, "--out", out, "--batch-size", "8")
    assert said.code == 0, said.err
    first, second = said.out.splitlines()
    assert first == f"wrote {out}: 32 vectors of 8 numbers" and second.startswith("encoder sha256: ")
    told = command("data", "describe", out, "--ways", "2")
    assert told.code == 0 and "8 classes, 32 examples of shape (8)" in told.out
    wrong = command("data", "embed", texts, "--encoder", folder, "--out", out, "--sha256", "0" * 64)
    assert wrong.code == 2 and f"but {'0' * 64} is asked for" in wrong.err
    pooled = command("data", "embed", texts, "--encoder", folder, "--out", out, "--pooling", "cls", "--no-normalized")
    assert pooled.code == 0, pooled.err
