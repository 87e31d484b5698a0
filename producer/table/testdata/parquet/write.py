"""Writes the Parquet files of this folder, and those of ../empty: python write.py .

They were written with pyarrow 26.0.1, duckdb 2.0.1, polars 2.1.0 and pandas 3.1.1. The texts beside them have
the same values, as the reader should describe them.
"""
import datetime as dt
import decimal
import os
import sys
import uuid

import duckdb
import pandas as pd
import polars
import pyarrow as pa
import pyarrow.parquet as pq

out = sys.argv[1]
os.makedirs(out, exist_ok=True)
D = decimal.Decimal
n = 5
utc = dt.timezone.utc
t0 = dt.datetime(2024, 2, 29, 12, 34, 56, 789012)
cols = {
 'i8': pa.array([-128, 127, None, 0, 5], pa.int8()),
 'u8': pa.array([0, 255, None, 1, 5], pa.uint8()),
 'i32': pa.array([-2**31, 2**31-1, None, 0, 5], pa.int32()),
 'u32': pa.array([0, 2**32-1, None, 1, 5], pa.uint32()),
 'i64': pa.array([-2**63, 2**63-1, None, 0, 5], pa.int64()),
 'u64': pa.array([0, 2**64-1, None, 1, 5], pa.uint64()),
 'f16': pa.array([1.5, -0.25, None, 65504.0, 5.960464477539063e-08], pa.float32()).cast(pa.float16()),
 'f32': pa.array([0.1, -1e38, None, float('inf'), 5], pa.float32()),
 'f64': pa.array([0.1, -1e308, None, float('nan'), 5], pa.float64()),
 'b': pa.array([True, False, None, True, False]),
 's': pa.array(['plain', 'ünï\n"q"', None, '', '日本'], pa.string()),
 'bin': pa.array([b'\x00\xff', b'', None, b'a', b'\x89PNG'], pa.binary()),
 'fix': pa.array([b'abcd', b'\x00\x01\x02\x03', None, b'zzzz', b'yyyy'], pa.binary(4)),
 'dec9': pa.array([D('-1.23'), D('9999999.99'), None, D('0.00'), D('0.05')], pa.decimal128(9, 2)),
 'dec38': pa.array([D('-1.2345'), D('9'*34 + '.9999'), None, D('0'), D('0.0001')], pa.decimal128(38, 4)),
 'dec76': pa.array([D('-1.5'), D('1'*60 + '.5'), None, D('0'), D('-0.5')], pa.decimal256(70, 1)),
 'date': pa.array([dt.date(1970,1,1), dt.date(2024,2,29), None, dt.date(1969,12,31), dt.date(1,1,1)], pa.date32()),
 't_ms': pa.array([dt.time(0), dt.time(23,59,59,999000), None, dt.time(1,2,3), dt.time(12)], pa.time32('ms')),
 't_us': pa.array([dt.time(0), dt.time(23,59,59,999999), None, dt.time(1,2,3), dt.time(12)], pa.time64('us')),
 'ts_ms': pa.array([t0.replace(microsecond=789000), dt.datetime(1969,12,31,23,59,59,1000), None, t0.replace(microsecond=0), t0.replace(microsecond=0)], pa.timestamp('ms')),
 'ts_us': pa.array([t0, t0, None, t0, t0], pa.timestamp('us')),
 'ts_ns_utc': pa.array([1709210096789012345, -1, None, 0, 1], pa.timestamp('ns', 'UTC')),
 'ts_us_utc': pa.array([t0, t0, None, t0, t0], pa.timestamp('us', 'UTC')),
 'dict': pa.array(['red', 'green', None, 'red', 'red']).dictionary_encode(),
 'null': pa.nulls(5),
 'list': pa.array([[1, 2], [], None, [None, 3], [4]], pa.list_(pa.int32())),
 'lists': pa.array([[['a'], []], [], None, [None, ['b', None]], [[]]], pa.list_(pa.list_(pa.string()))),
 'struct': pa.array([{'a': 1, 'b': 'x'}, {'a': None, 'b': 'y"'}, None, {'a': 3, 'b': None}, {'a': 4, 'b': ''}], pa.struct([('a', pa.int64()), ('b', pa.string())])),
 'map': pa.array([[('k', 1), ('l', None)], [], None, [('m', 2)], [('n', 3)]], pa.map_(pa.string(), pa.int32())),
 'imap': pa.array([[(1, 'a')], [], None, [(2, None)], [(3, 'c')]], pa.map_(pa.int32(), pa.string())),
 'messages': pa.array([[{'role': 'user', 'content': 'hi'}], [], None, [{'role': 'system', 'content': 'be'}, {'role': 'user', 'content': 'x'}], [{'role': 'user', 'content': None}]],
                      pa.list_(pa.struct([('role', pa.string()), ('content', pa.string())]))),
 'a.b': pa.array(['dot', 'ted', None, 'x', 'y']),
 'uuid': pa.array([uuid.UUID(int=1).bytes, uuid.UUID('12345678-9abc-def0-1234-56789abcdef0').bytes, None, uuid.UUID(int=0).bytes, uuid.UUID(int=2).bytes], pa.binary(16)),
}
table = pa.table(cols)
for name, kw in {
    'pyarrow-snappy': dict(compression='snappy'),
    'pyarrow-zstd': dict(compression='zstd', data_page_version='2.0', row_group_size=2, write_page_index=True),
    'pyarrow-gzip': dict(compression='gzip', use_dictionary=False, row_group_size=3, write_page_checksum=True),
    'pyarrow-brotli': dict(compression='brotli'),
    'pyarrow-lz4': dict(compression='lz4'),
    'pyarrow-integers': dict(store_decimal_as_integer=True, use_compliant_nested_type=False, bloom_filter_options={'s': True}),
    'pyarrow-none': dict(compression='none', store_schema=False),
}.items():
    pq.write_table(table, f'{out}/{name}.parquet', **kw)
enc = {'i32': 'DELTA_BINARY_PACKED', 'i64': 'DELTA_BINARY_PACKED', 's': 'DELTA_BYTE_ARRAY', 'bin': 'DELTA_LENGTH_BYTE_ARRAY', 'f32': 'BYTE_STREAM_SPLIT', 'f64': 'BYTE_STREAM_SPLIT', 'b': 'RLE'}
sub = table.select(list(enc))
pq.write_table(sub, f'{out}/pyarrow_delta.parquet', use_dictionary=False, column_encoding=enc, data_page_version='2.0')
pq.write_table(table.select(['ts_us', 'ts_ns_utc']), f'{out}/pyarrow_int96.parquet', use_deprecated_int96_timestamps=True)
con = duckdb.connect()
con.execute("SET TimeZone='UTC'")
con.execute(f"""COPY (SELECT i AS id, 'text ' || i AS text, CASE WHEN i%2=0 THEN i*1.5::DECIMAL(10,2) END AS price, i::UTINYINT AS tiny, (i*1000)::UBIGINT AS big,
  DATE '2024-02-29' + i::INT AS day, TIMESTAMP '2024-02-29 12:34:56.789' + to_days(i::INT) AS ts, TIMESTAMPTZ '2024-02-29 12:34:56+00' AS tz,
  TIME '12:34:56.5' AS t, INTERVAL (i) DAY AS iv, [i, i+1, NULL] AS l, {{'a': i, 'b': 'x'}} AS s, MAP {{'k': i}} AS m, '{{"q": 1}}'::JSON AS j, 'blob'::BLOB AS bl,
  '12345678-9abc-def0-1234-56789abcdef0'::UUID AS u, i%2=0 AS flag, i::HUGEINT AS huge, (['red','green'])[1 + i%2]::ENUM('red','green') AS color, i/3.0 AS f
  FROM range(5) t(i)) TO '{out}/duckdb-snappy.parquet' (FORMAT parquet)""")
con.execute(f"COPY (SELECT * FROM '{out}/duckdb-snappy.parquet') TO '{out}/duckdb-zstd.parquet' (FORMAT parquet, COMPRESSION zstd, PARQUET_VERSION v2)")
pl = polars.DataFrame({'id': [1, 2, 3], 'text': ['a', None, 'c'], 'x': [1.5, None, float('nan')], 'when': [t0, None, t0], 'day': [dt.date(2024,2,29), None, dt.date(1969,1,1)],
  'tags': [['a', 'b'], [], None], 's': [{'a': 1}, {'a': None}, None], 'cat': polars.Series(['x', 'y', 'x'], dtype=polars.Categorical), 'd': [D('1.10'), None, D('-2.25')], 'dur': [dt.timedelta(seconds=1), None, dt.timedelta(days=1)], 't': [dt.time(1,2,3,4), None, dt.time(0)], 'b': [b'x', None, b'']})
pl.write_parquet(f'{out}/polars.parquet')
pdf = pd.DataFrame({'id': [10, 20, 30], 'text': ['a', 'b', None], 'x': [1.0, None, 3.5], 'when': pd.to_datetime(['2024-02-29 01:02:03.000000004', None, '1960-01-01 00:00:00.5']), 'cat': pd.Categorical(['u', 'v', 'u'])}, index=pd.Index(['r1', 'r2', 'r3'], name='key'))
pdf.to_parquet(f'{out}/pandas.parquet')

empty = f'{out}/../empty'
os.makedirs(empty, exist_ok=True)
schema = pa.schema([('id', pa.int64()), ('text', pa.string()), ('tags', pa.list_(pa.string()))])
none, two = schema.empty_table(), pa.table({'id': [1, 2], 'text': ['a', None], 'tags': [['x'], []]}, schema)
for name, groups in {'no_groups': [], 'no_rows': [none], 'empty_groups': [none, two, none, two, none]}.items():
    with pq.ParquetWriter(f'{empty}/{name}.parquet', schema) as w:
        for rows in groups:
            w.write_table(rows)
