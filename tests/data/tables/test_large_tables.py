"""A table that memory does not hold: its rows stay on disk while it is imported, checked and drawn from."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

LIMIT_BYTES, GROUPS, ROWS, SIZE = 640 * 2**20, 12, 16_384, 1024

SCRIPT = f"""
import resource, sys
from pathlib import Path

resource.setrlimit(resource.RLIMIT_DATA, ({LIMIT_BYTES}, {LIMIT_BYTES}))
from metaray.data import GroupTable
from metaray.data.draws import Draws
from metaray.data.episode_spec import EpisodeSpec
from metaray.data.tables.importing import import_table

folder = Path(sys.argv[1])
report = import_table(folder / "big.parquet", folder / "big.arrow", tasks=["group"], target="y")
source, spec = GroupTable(path=str(report.path)), EpisodeSpec(shots=5, queries=5)
source.verify()
print(report.rows, source.sample_task(Draws(0, "meta-train", 0), "meta-train", spec).query.x.shape)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the limit counts a process's own memory on Linux alone")
def test_a_table_larger_than_memory(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    fields = [("group", pa.int32()), ("y", pa.float32()), ("embedding", pa.list_(pa.float32(), SIZE))]
    schema = pa.schema(fields)
    with pq.ParquetWriter(tmp_path / "big.parquet", schema, compression="none", use_dictionary=False) as writer:
        for _ in range(GROUPS):
            x = generator.random((ROWS, SIZE), dtype=np.float32)
            groups = pa.array(generator.integers(0, GROUPS, ROWS), pa.int32())
            columns = [groups, pa.array(x[:, 0]), pa.FixedSizeListArray.from_arrays(pa.array(x.reshape(-1)), SIZE)]
            writer.write_batch(pa.record_batch(columns, schema=schema), row_group_size=ROWS)
    assert (tmp_path / "big.parquet").stat().st_size > LIMIT_BYTES
    command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split() == [str(GROUPS * ROWS), "(5,", f"{SIZE})"]
