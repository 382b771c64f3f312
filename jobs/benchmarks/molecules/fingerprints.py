"""Molecules with assays, a CSV file of SMILES and labels, as a Parquet file with a fingerprint a row.

    pip install rdkit
    python -m jobs.benchmarks.molecules.fingerprints tox21.csv.gz --out tox21.parquet [--bits 2048] [--binary]

Morgan fingerprints of radius 2 (Rogers and Hahn, "Extended-connectivity fingerprints", J. Chem. Inf. Model. 50(5),
2010), how often each substructure occurs or, with `--binary`, whether it does, as one column of vectors of bytes. What
rdkit cannot read is left out, and told. Every column but the SMILES and `mol_id` is an assay: 1, 0, or empty.

With `--apart test.txt` three molecules in ten, chosen by their SMILES, keep their labels in the assays that the file
names, and the others those in all other assays: then what is judged are new assays on new molecules.
"""

import argparse
import csv
import gzip
import hashlib
from collections.abc import Collection, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from metaray.errors import InputError

SMILES, FINGERPRINT, NO_ASSAYS = "smiles", "fingerprint", ("smiles", "mol_id")
RADIUS, BLOCK_ROWS = 2, 4096


class Fingerprints:
    """What makes bytes of a molecule.

    Args:
        bits: of a fingerprint.
        binary: whether a substructure occurs, instead of how often.

    Raises:
        InputError: if there is no rdkit.
    """

    def __init__(self, bits: int, *, binary: bool) -> None:
        try:
            self._chem, rdkit = import_module("rdkit.Chem"), import_module("rdkit")
            makers = import_module("rdkit.Chem.rdFingerprintGenerator")
        except ImportError:
            raise InputError("fingerprints are made by rdkit, which is not installed: pip install rdkit") from None
        rdkit.RDLogger.DisableLog("rdApp.*")
        self._maker, self._binary = makers.GetMorganGenerator(radius=RADIUS, fpSize=bits), binary

    def __call__(self, smiles: str) -> NDArray[np.uint8] | None:
        """[bits] of a molecule, counts above 255 as 255; None of what is none."""
        molecule = self._chem.MolFromSmiles(smiles)
        if molecule is None:
            return None
        made = self._maker.GetFingerprintAsNumPy if self._binary else self._maker.GetCountFingerprintAsNumPy
        found: NDArray[np.uint8] = np.minimum(made(molecule), 255).astype(np.uint8)
        return found


def assays_of(path: Path) -> list[str]:
    """The names of the assays of a CSV file, in its order."""
    with _opened(path) as file:
        return [name for name in next(csv.reader(file)) if name not in NO_ASSAYS]


def write_fingerprints(
    source: Path, out: Path, *, bits: int, binary: bool, apart: Collection[str] = ()
) -> tuple[int, list[str]]:
    """Write the Parquet file, by blocks of rows.

    Args:
        source: a CSV file, perhaps compressed by gzip.
        out: the Parquet file: the assays as bytes that may be null, and `fingerprint`, a list of `bits` bytes.
        bits: of a fingerprint.
        binary: see `Fingerprints`.
        apart: the assays that are to have molecules of their own.

    Returns:
        The number of rows, and the SMILES that were left out.
    """
    fingerprints, assays = Fingerprints(bits, binary=binary), assays_of(source)
    labels = [pa.field(name, pa.int8()) for name in assays]
    schema = pa.schema([*labels, pa.field(FINGERPRINT, pa.list_(pa.uint8(), bits))])
    written, lost = 0, []
    with pq.ParquetWriter(out, schema, compression="zstd") as writer:
        for rows in _blocks(source):
            made = [fingerprints(row[SMILES]) for row in rows]
            lost += [row[SMILES] for row, found in zip(rows, made, strict=True) if found is None]
            kept = [(row, found) for row, found in zip(rows, made, strict=True) if found is not None]
            flat = np.concatenate([found for _, found in kept])
            cells: list[Any] = [pa.array([_label(row, name, apart) for row, _ in kept], pa.int8()) for name in assays]
            cells.append(pa.FixedSizeListArray.from_arrays(pa.array(flat), bits))
            writer.write_batch(pa.record_batch(cells, schema=schema))
            written += len(kept)
    return written, lost


def _blocks(source: Path) -> Iterator[list[dict[str, str]]]:
    with _opened(source) as file:
        rows: list[dict[str, str]] = []
        for row in csv.DictReader(file):
            rows.append(row)
            if len(rows) == BLOCK_ROWS:
                yield rows
                rows = []
        if rows:
            yield rows


def _opened(path: Path) -> Any:
    return gzip.open(path, "rt", newline="") if path.suffix == ".gz" else path.open(newline="")


def _label(row: dict[str, str], assay: str, apart: Collection[str]) -> int | None:
    if not row[assay].strip() or (apart and is_apart(row[SMILES]) != (assay in apart)):
        return None
    return int(float(row[assay]))


def is_apart(smiles: str) -> bool:
    """Whether a molecule is one of the three in ten."""
    return hashlib.sha256(smiles.encode()).digest()[0] < 0.3 * 256


def main() -> None:
    """Write the file that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--bits", type=int, default=2048)
    parser.add_argument("--binary", action="store_true", help="whether a substructure occurs, and not how often")
    parser.add_argument("--apart", type=Path, metavar="FILE", help="assays that are to have molecules of their own")
    options = parser.parse_args()
    apart = options.apart.read_text().split("\n") if options.apart else ()
    rows, lost = write_fingerprints(
        options.source, options.out, bits=options.bits, binary=options.binary, apart=[name for name in apart if name]
    )
    print(f"wrote {options.out}: {rows} molecules, {options.bits} bits")
    if lost:
        print(f"left out, since rdkit cannot read them: {', '.join(lost[:5])}{', ...' if len(lost) > 5 else ''}")


if __name__ == "__main__":
    main()
