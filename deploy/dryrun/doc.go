// Package dryrun describes the requests of an input without sending them.
//
// A [Preview] takes the requests in their order with [Preview.Add]. It keeps a few examples,
// the first ones and those with the shortest and the longest prompt, and counts the lengths of
// all prompts in a histogram whose buckets are fixed, so that its memory does not grow with the
// input. [Preview.Print] prints it for a person, and its JSON form is for programs.
package dryrun
