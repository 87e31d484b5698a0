"""Compares Parquet files with those that have the same rows and more columns: compare_parquet.py FROM TO."""
import os
import sys

import duckdb
import pandas
import polars
import pyarrow.parquet as pq
from datasets import load_dataset

NEW = {
    "new answer": ["the answer", None],
    "new tokens": [0, None, -2, None, -4],
    "new score": [1.5, None],
    "new flag": [True, None],
    "new json": ['{"a":[1]}', None],
    "new bytes": [b"\x00\xff", None],
}
NEW_TYPES = ["string", "int64", "double", "bool", "extension<arrow.json>", "binary"]

# Types that only the key ARROW:schema in the footer has, which does not hold for more columns: durations become
# integers; polars reads categories as text, and a column of nulls as integers. Polars also takes the unit and the
# zone of INT96 from it.
ARROW_ONLY = {"dur"}
POLARS_ONLY = {"cat", "dict", "null"}
# Types that a reader does not have.
NOT_IN_POLARS = {"dec76", "iv"}
NOT_IN_DUCKDB = {"dec76"}


def same(what, name, a, b):
    """NaN is not equal to itself, so the texts are compared."""
    assert str(a) == str(b), f"{what} {name}: {a} is now {b}"


def schema_lines(path):
    lines = str(pq.ParquetFile(path).schema).splitlines()
    return [line for line in lines if line.startswith(" ")]


origin, copies = sys.argv[1:]
con = duckdb.connect()
con.execute("SET TimeZone='UTC'")
count = 0

for name in sorted(os.listdir(origin)):
    if not name.endswith(".parquet"):
        continue
    count += 1
    old, new = os.path.join(origin, name), os.path.join(copies, name)
    want = schema_lines(old)
    same("schema of", name, want, schema_lines(new)[: len(want)])

    x, y = pq.read_table(old), pq.read_table(new)
    for c in x.column_names:
        if c not in ARROW_ONLY:
            same(f"pyarrow {name}", c, x[c].to_pylist(), y[c].to_pylist())
        if c not in NOT_IN_DUCKDB:
            query = f'SELECT "{c}", typeof("{c}") FROM read_parquet(\'%s\')'
            same(f"duckdb {name}", c, con.execute(query % old).fetchall(), con.execute(query % new).fetchall())
    for i, (c, values) in enumerate(NEW.items()):
        want = [values[k if len(values) > 2 else k % 2] for k in range(y.num_rows)]
        same(f"pyarrow {name}", c, want, y[c].to_pylist())
        same(f"pyarrow {name}", c, NEW_TYPES[i], y.schema.field(c).type)
    assert y.column_names == x.column_names + list(NEW), y.column_names

    metadata = pq.ParquetFile(new).metadata.metadata
    assert metadata[b"promptmill.run"] == b"run-1", metadata
    assert not {b"pandas", b"ARROW:schema", b"huggingface"} & set(metadata), metadata

    if not name.startswith("duckdb") and "int96" not in name:  # duckdb's has intervals
        columns = [c for c in x.column_names if c not in NOT_IN_POLARS]
        a, b = polars.read_parquet(old, columns=columns), polars.read_parquet(new, columns=columns)
        for c in columns:
            if c in POLARS_ONLY:
                same(f"polars {name}", c, a[c].to_list(), b[c].to_list())
            elif c not in ARROW_ONLY:
                same(f"polars {name}", c, (a[c].dtype, a[c].to_list()), (b[c].dtype, b[c].to_list()))

    frame = pandas.read_parquet(new)
    assert len(frame) == y.num_rows and list(frame.columns) == y.column_names, name

    if name in ("pandas.parquet", "polars.parquet"):
        rows = load_dataset("parquet", data_files=new, split="train", cache_dir=os.path.join(copies, "cache"))
        assert rows.column_names == y.column_names and len(rows) == y.num_rows, rows

assert count >= 12, count
