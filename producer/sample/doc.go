// Package sample draws a sample of the requests of an input, and orders it so that each beginning of it is balanced by
// the length of the prompts.
//
// [Draw] reads the input once, however long it is. A drawing keeps the requests with the smallest hashes of their
// numbers, as the settings' Sample of a run does, so that both choose the same ones. Their lines wait in a lineStore, a
// temporary file, until the last request was read. Then they are put in the order of a scrambled van der Corput
// sequence over their lengths, and written as lines of a batch.
//
//	files ─► producer.Survey ─► drawing ─► spread ─► lines
//	                              │  ▲                expected
//	                              ▼  │
//	                            lineStore
package sample
