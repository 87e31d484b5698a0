// Package table reads the rows of tables: CSV, Parquet, JSON and lines of text.
//
// [Open] finds the format of a file by its contents and returns a [Reader] of its rows. A [Row]
// has a [Value] for each [Column]. Readers stream: they hold a row, or of Parquet the pages of
// a row group, and never a whole file. They continue at the [Position] of an earlier reader of
// the same file.
package table
