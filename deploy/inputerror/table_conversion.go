package inputerror

import (
	"github.com/promptmill/promptmill/producer/fileformat"
	"github.com/promptmill/promptmill/producer/table"
)

// tableConversionOf returns the conversion of a file to a table that can be read.
func tableConversionOf(e *table.FormatError) conversion {
	if e.HasOldLineEnds {
		return conversion{
			verb:        "convert",
			command:     `tr '\r' '\n'`,
			source:      fromStdin,
			keepsEnding: true,
		}
	}

	c := conversionOf(e.Detection)
	if unpackers[e.Format] != "" || encodings[e.Format] != "" {
		c.keepsEnding = true
		return c
	}

	switch e.Format {
	case fileformat.Zip, fileformat.SevenZip, fileformat.Tar:
		c.keepsEnding = true
	case fileformat.JSONArray:
		return jqConversion("-c", ".[] | "+valueFilter(e.Element))
	case fileformat.JSONStrings:
		return jqConversion("-c", valueFilter('"'))
	case fileformat.Arrow:
		c = pythonConversion(fromFileToFile, "pandas, sys", "pandas.read_feather(sys.argv[1]).to_parquet(sys.argv[2])")
		c.ending = ".parquet"
	case fileformat.SQLite:
		return conversion{
			verb:    "put in its table to convert",
			command: "sqlite3 -json",
			source:  fromFile,
			then:    ` 'SELECT * FROM requests'`,
			ending:  ".json",
		}
	case fileformat.Binary, fileformat.PDF:
		return conversion{advice: "save it as CSV, JSON lines or Parquet, and give that"}
	}

	return c
}

// valueFilter returns the filter of jq that makes a row of a value.
func valueFilter(kind byte) string {
	switch kind {
	case '"':
		return "{" + table.TextColumn + ": .}"
	case '[':
		return messagesFilter
	}
	return "{value: .}"
}
