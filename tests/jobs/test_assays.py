"""Assays: what the recipes read, the fingerprints' file, and the study of a small table, end to end."""

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from jobs import assays
from jobs.benchmarks.molecules import fingerprints, study
from metaray.data import GroupTable
from metaray.data.draws import Split
from metaray.data.tables.importing import import_table
from metaray.errors import InputError
from metaray.experiment import Experiment

ASSAYS: dict[Split, list[str]] = {"meta-train": ["a", "b"], "meta-val": ["c"], "meta-test": ["d", "e"]}
RECIPES = {
    "assays-protonet-10shot": assays.protonet_10shot,
    "assays-r2d2-10shot": assays.r2d2_10shot,
    "assays-anil-10shot": assays.anil_10shot,
    "assays-cnp-10shot": assays.cnp_10shot,
}


class Letters:
    """Stands in for rdkit: how often each of so many letters occurs."""

    def __init__(self, bits: int, *, binary: bool) -> None:
        self._bits, self._binary = bits, binary

    def __call__(self, smiles: str) -> np.ndarray | None:
        if "?" in smiles:
            return None
        found = np.array([smiles.count(chr(97 + place)) for place in range(self._bits)], dtype=np.uint8)
        return np.minimum(found, 1) if self._binary else found


def molecules(path: Path, rows: int = 120) -> Path:
    """Letters instead of molecules: an assay asks for one of them, and is not measured in every fifth row."""
    generator = np.random.default_rng(0)
    with gzip.open(path, "wt", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*"abcde", "mol_id", "smiles"])
        for row in range(rows):
            smiles = "".join(generator.choice(list("abcdefgh"), 6))
            labels = [str(int(letter in smiles)) if generator.random() > 0.2 else "" for letter in "abcde"]
            writer.writerow([*labels, f"m{row}", "?" if row == 7 else smiles])
    return path


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_are_what_they_say(name: str) -> None:
    """They are made, and come back from JSON, without the file."""
    experiment = RECIPES[name]()
    assert experiment.name == name and Experiment.from_json(experiment.to_json()) == experiment
    assert isinstance(experiment.source, GroupTable) and experiment.source.targets == "binary"
    assert (experiment.episodes.shots, experiment.eval_spec.shots, experiment.eval_spec.queries) == (10, 10, "rest")


@pytest.mark.parametrize("binary", [False, True])
def test_fingerprints_are_a_column_of_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, binary: bool) -> None:
    monkeypatch.setattr(fingerprints, "Fingerprints", Letters)
    monkeypatch.setattr(fingerprints, "BLOCK_ROWS", 50)
    source, out = molecules(tmp_path / "m.csv.gz"), tmp_path / "m.parquet"
    rows, lost = fingerprints.write_fingerprints(source, out, bits=8, binary=binary)
    assert (rows, lost) == (119, ["?"])
    table = pq.read_table(out)
    assert table.column_names == [*"abcde", "fingerprint"] and table["a"].null_count > 5
    values = np.array(table["fingerprint"].to_pylist())
    assert values.shape == (119, 8) and (values.sum(axis=1).max() <= 6) and (values.max() == 1) == binary
    labels = np.array(table["a"].to_pylist(), dtype=np.float64)
    assert np.array_equal(labels[~np.isnan(labels)], values[~np.isnan(labels), 0] > 0)


def test_assays_with_molecules_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprints, "Fingerprints", Letters)
    out = tmp_path / "m.parquet"
    fingerprints.write_fingerprints(molecules(tmp_path / "m.csv.gz"), out, bits=8, binary=False, apart=["d", "e"])
    rows = pq.read_table(out).to_pylist()
    new = [any(row[name] is not None for name in "de") for row in rows]
    old = [any(row[name] is not None for name in "abc") for row in rows]
    assert not any(a and b for a, b in zip(new, old, strict=True)) and 20 < sum(new) < 50 and sum(old) > 60


def test_without_rdkit_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(name: str) -> Any:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(fingerprints, "import_module", nothing)
    with pytest.raises(InputError, match="pip install rdkit"):
        fingerprints.Fingerprints(8, binary=False)


def test_a_study_judges_assay_by_assay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprints, "Fingerprints", Letters)
    fingerprints.write_fingerprints(molecules(tmp_path / "m.csv.gz"), tmp_path / "m.parquet", bits=8, binary=False)
    options: dict[str, Any] = {"tasks": list("abcde"), "wide": True, "binary": True, "splits": ASSAYS}
    import_table(tmp_path / "m.parquet", tmp_path / "m.arrow", **options)
    settings = ["num_steps=2", "meta_batch_size=2", "episodes.queries=4", "evaluation.val_episodes=2"]
    arguments = (tmp_path / "m.arrow", ["protonet_10shot"], 0, "meta-test", 2, settings)
    found = study.study(*arguments)  # type: ignore[arg-type]
    names = [
        "labels in meta-train, no support",
        "nearest neighbour",
        "logistic regression",
        "protonet_10shot",
        "protonet_10shot, untrained",
    ]
    assert list(found["areas"]) == names
    for of in found["areas"].values():
        assert list(of) == ["d", "e"] and all(0 <= one <= 1 for one in of.values())
    assert found["areas"]["logistic regression"]["d"] > 0.7  # letters tell their assays
    assert study.study(*arguments)["areas"] == found["areas"]  # type: ignore[arg-type]
    (tmp_path / "m.json").write_text(json.dumps([found, found | {"seed": 1}]))
    page = study.page(tmp_path)
    assert "| protonet_10shot |" in page and "## m: 2 seeds" in page
