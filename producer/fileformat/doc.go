// Package fileformat recognises the format of a file by its beginning.
//
// [Detect] looks at the first bytes of a file, unpacked if it is gzip or zstd, and returns a
// [Detection]: the [Format], and the facts that a conversion to JSON lines needs, such as the
// columns of a table. It reads nothing itself, so it takes no memory beyond the beginning that
// it is given. detect.go decides between the formats; magic.go has those that are known by
// their first bytes, object.go those that begin with a brace or a bracket, and table.go those
// of plain text.
//
// A file of requests must never be taken for another format because some of its lines are wrong. So
// whatever could be the first, wrong line of such a file is not [Detection.Certain]: the producer
// then looks for a request further down.
package fileformat
