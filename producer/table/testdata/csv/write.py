"""Writes the tables of this folder: python write.py .

They were written with pandas 3.1.1, polars 2.1.0, duckdb 2.0.1 and the module csv of Python. excel-*.csv and
excel-unicode.txt have the separators, encodings and line ends with which Excel saves; Excel did not write them.
TestTablesOfOthers has the rows that they must give.
"""
import csv
import os
import sys

import duckdb
import pandas as pd
import polars

out = sys.argv[1]
rows = [
    (1, 'plain', 0.5),
    (2, 'comma, "quotes"; semicolon', 1e-7),
    (3, 'two\nlines', None),
    (4, None, -2.25),
    (5, 'Ünïcode 日本 😀', 3.0),
]
names = ['id', 'text', 'score']


def path(name):
    return os.path.join(out, name)


frame = pd.DataFrame(rows, columns=names)
frame.to_csv(path('pandas-index.csv'))
frame.to_csv(path('pandas.csv'), index=False)
frame.to_csv(path('pandas-quoted.csv.gz'), index=False, quoting=csv.QUOTE_ALL, compression={'method': 'gzip', 'mtime': 1})
frame.to_json(path('pandas.jsonl'), orient='records', lines=True)
frame.to_json(path('pandas.json'), orient='records', indent=2)
table = polars.DataFrame(rows, schema=names, orient='row')
table.write_csv(path('polars.csv'))
table.write_csv(path('polars.tsv'), separator='\t')
table.write_ndjson(path('polars.jsonl'))
table.write_json(path('polars.json'))
db = duckdb.connect()
db.execute("CREATE TABLE rows (id INTEGER, text TEXT, score DOUBLE)")
db.executemany("INSERT INTO rows VALUES (?, ?, ?)", rows)
db.execute(f"COPY rows TO '{path('duckdb.csv')}' (HEADER)")
db.execute(f"COPY rows TO '{path('duckdb-pipe.csv')}' (HEADER, DELIMITER '|')")
db.execute(f"COPY rows TO '{path('duckdb.jsonl')}' (FORMAT json)")
db.execute(f"COPY rows TO '{path('duckdb.json')}' (FORMAT json, ARRAY true)")
for name, encoding, delimiter in (
        ('excel-utf8.csv', 'utf-8-sig', ','), ('excel-semicolon.csv', 'utf-8-sig', ';'), ('excel-unicode.txt', 'utf-16', '\t')):
    with open(path(name), 'w', encoding=encoding, newline='') as file:
        writer = csv.writer(file, delimiter=delimiter, lineterminator='\r\n')
        writer.writerows([names, *rows])
