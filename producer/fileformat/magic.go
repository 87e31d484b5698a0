package fileformat

import (
	"bytes"
)

// magicNumbers are the first bytes of formats that are no text.
var magicNumbers = []struct {
	format Format
	offset int
	bytes  string
}{
	{Gzip, 0, "\x1f\x8b"},                        // RFC 1952, 2.3.1
	{Zstd, 0, "\x28\xb5\x2f\xfd"},                // RFC 8878, 3.1.1
	{Zstd, 1, "\x2a\x4d\x18"},                    // a skippable frame behind its number, 3.1.2
	{XZ, 0, "\xfd7zXZ\x00"},                      // xz-file-format.txt, 2.1.1.1
	{Bzip2, 4, "\x31\x41\x59\x26\x53\x59"},       // behind "BZh" and the level
	{Bzip2, 4, "\x17\x72\x45\x38\x50\x90"},       // the same, of nothing
	{LZ4, 0, "\x04\x22\x4d\x18"},                 // lz4_Frame_format.md
	{LZ4, 0, "\x02\x21\x4c\x18"},                 // its legacy frame
	{Zip, 0, "PK\x03\x04"},                       // APPNOTE.TXT, 4.3.7
	{Zip, 0, "PK\x05\x06"},                       // an empty one, 4.3.16
	{SevenZip, 0, "7z\xbc\xaf\x27\x1c"},          // 7zFormat.txt
	{Tar, 257, "ustar"},                          // pax(1), ustar Interchange Format
	{Parquet, 0, "PAR1\x15"},                     // parquet-format; a Thrift field follows
	{Arrow, 0, "ARROW1\x00\x00"},                 // Format.rst, IPC File Format
	{Arrow, 0, "FEA1"},                           // version 1 of Feather
	{SQLite, 0, "SQLite format 3\x00"},           // fileformat2.html, 1.3
	{PDF, 0, "%PDF-"},                            // ISO 32000-1, 7.5.2
	{Spreadsheet, 0, "\xd0\xcf\x11\xe0\xa1\xb1"}, // [MS-CFB] 2.2, of Excel before 2007
	{UTF32LE, 0, "\xff\xfe\x00\x00"},             // Unicode, 23.8; before UTF-16
	{UTF32BE, 0, "\x00\x00\xfe\xff"},             // the same
	{UTF16LE, 0, "\xff\xfe"},                     // the same
	{UTF16BE, 0, "\xfe\xff"},                     // the same
}

// detectMagic recognises a format that is no text in UTF-8.
func detectMagic(start []byte) (Detection, bool) {
	for _, m := range magicNumbers {
		if len(start) < m.offset || !bytes.HasPrefix(start[m.offset:], []byte(m.bytes)) {
			continue
		}

		d := Detection{Format: m.format, Certain: true}
		switch m.format {
		case UTF16LE, UTF16BE, UTF32LE, UTF32BE:
			d.ByteOrderMark = true
		case Zip:
			if isWorkbook(start) {
				d.Format = Spreadsheet
			}
		case Bzip2:
			if !bytes.HasPrefix(start, []byte("BZh")) {
				continue
			}
		case Zstd:
			if m.offset > 0 && start[0]&0xf0 != 0x50 {
				continue
			}
		}

		return d, true
	}

	return detectZeros(start)
}

// isWorkbook reports whether a zip archive is an Excel workbook: the names of its members, which
// stand uncompressed before their contents, say so.
func isWorkbook(start []byte) bool {
	return bytes.Contains(start, []byte("xl/")) && bytes.Contains(start, []byte("[Content_Types].xml"))
}

// detectZeros recognises UTF-16 and UTF-32 without a byte-order mark, whose letters of English have
// zeros, and other files with zeros, which no text in UTF-8 has.
func detectZeros(start []byte) (Detection, bool) {
	const most = 4096
	start = start[:min(len(start), most)]
	if bytes.IndexByte(start, 0) < 0 {
		return Detection{}, false
	}

	start = start[:len(start)&^3]

	var zeros [4]int
	for i, c := range start {
		if c == 0 {
			zeros[i&3]++
		}
	}

	quarter := len(start) / 4
	mostly := func(i int) bool { return zeros[i] > quarter*3/4 }
	rarely := func(i int) bool { return zeros[i] <= quarter/4 }

	d := Detection{Format: Binary, Certain: true}
	switch {
	case rarely(0) && mostly(1) && mostly(2) && mostly(3):
		d.Format = UTF32LE
	case mostly(0) && mostly(1) && mostly(2) && rarely(3):
		d.Format = UTF32BE
	case rarely(0) && mostly(1) && rarely(2) && mostly(3):
		d.Format = UTF16LE
	case mostly(0) && rarely(1) && mostly(2) && rarely(3):
		d.Format = UTF16BE
	}

	return d, true
}
