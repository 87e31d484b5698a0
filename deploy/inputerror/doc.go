// Package inputerror puts the faults of an input into words for the person who gave it: the file as
// it was named, the fault once, and as the hint a command that repairs this file.
//
// [Input.Describe] does so for a file that cannot be read or has another format than JSON lines
// (conversion.go has the commands that convert each format, written_by_run.go finds the requests of
// a file that a run has written).
package inputerror
