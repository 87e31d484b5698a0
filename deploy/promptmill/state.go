package main

// spoolFile is the file in a folder of state that has the copy of standard input.
const spoolFile = "input"
