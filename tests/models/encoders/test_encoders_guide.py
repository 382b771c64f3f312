"""docs/encoders.md is true: its commands and its Python run, in its order, on tiny encoders of its names."""

import importlib
import re
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tests.models.encoders.tiny import bert_folder
from tests.models.encoders.tiny_images import PREPARATION, picture_folder, resnet_folder, vit_folder

GUIDE = Path(__file__).parents[3] / "docs" / "encoders.md"
OWN = ("photos", "nets")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database: str) -> Path:
    """What the page's reader has."""
    for name in OWN:
        monkeypatch.delitem(sys.modules, name, raising=False)
    resnet_folder(tmp_path / "resnet18", preparation=PREPARATION)
    vit_folder(tmp_path / "vit")
    bert_folder(tmp_path / "bert")
    images = picture_folder(tmp_path / "photos", classes=15)
    for name in ("c7", "c8"):
        for place in range(6):
            to = tmp_path / ("known" if place < 2 else "new") / name
            to.mkdir(parents=True, exist_ok=True)
            shutil.copy(images / name / f"{place}.png", to)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", database)
    return tmp_path


def own_weights(folder: Path) -> None:
    net = importlib.import_module("nets").Net
    for name, width in (("net", 8), ("wide", 16)):
        torch.manual_seed(0)
        save_file(net(width).state_dict(), folder / f"{name}.safetensors")


@pytest.mark.slow
def test_the_page_is_true(folder: Path, command: Callable[..., Any]) -> None:
    blocks = re.findall(r"```(python)?\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    assert sum(1 for kind, _ in blocks if kind) == 4 and len(blocks) == 8
    for kind, text in blocks:
        if not kind:
            for line in text.strip().splitlines():
                _, *words = shlex.split(line)
                if "LEARNER" in words:
                    words[words.index("LEARNER")] = str(next(folder.glob("runs/*/learner")))
                said = command(*words)
                assert said.code == 0, (line, said.err)
        elif name := re.match(r"# (\w+)\.py\n", text):
            (folder / f"{name[1]}.py").write_text(text)
            importlib.invalidate_caches()
            if name[1] == "nets":
                own_weights(folder)
        else:
            exec(compile(text, str(GUIDE), "exec"), {})
    (blob,) = (folder / "runs" / "blobs").iterdir()
    assert blob.stat().st_size > 1000
