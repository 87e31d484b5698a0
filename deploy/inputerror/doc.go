// Package inputerror puts the faults of an input into words for the person who gave it: the file as
// it was named, each fault once, and as the hint the command that repairs this file.
//
// [Input.Check] looks at the inputs of a command line. [Input.Describe] describes a file that cannot be
// read or has another format than JSON lines: conversion.go has the commands that convert each
// format, run_output.go finds the input of a run in the files that the run has written.
// [Input.PrintReasons] and [Input.DescribeLines] describe the lines that cannot be sent.
package inputerror
