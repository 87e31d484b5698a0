// Package proto is the wire between promptmill's parts: the names of streams,
// subjects and consumers, and the codecs of requests, shards, results and runs.
//
// Producer, worker and collector know each other only through this package; what
// it does is described for other languages in README.md beside it.
package proto
