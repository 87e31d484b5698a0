// Package objectstore reads and writes the files of a run wherever they are: on this machine,
// in an object store, on a web server or in a data set of Hugging Face.
//
// A [Client] opens files by their path or URL and implements the producer's Opener.
// [Client.Expand] lists the files of a folder, a prefix or a glob. Each scheme is a [store]: it
// describes an object, opens a range of it, and lists the objects of a prefix, with one attempt
// each. What all schemes share is above them: a remote file reads on from where a connection
// broke, retries what may pass, and refuses an object that is not the one that was validated.
package objectstore
