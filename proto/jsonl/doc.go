// Package jsonl reads files of JSON lines, plain or compressed. [Open] opens a file and
// decompresses it by its first bytes; a [Reader] splits the text into lines.
//
// The producer reads the input of a run with it, and promptmill verify and doctor read inputs
// and outputs. The lines themselves are not looked at: that is for packages proto and producer.
package jsonl
