// Package objectstore reads and writes the files of a run wherever they are: on this machine,
// in an object store, on a web server or in a data set of Hugging Face.
//
// A [Client] opens files by their path or URL and implements the producer's Opener.
// [Client.Expand] lists the files of a folder, a prefix or a glob. Each scheme is a [store]: it
// describes an object and opens a range of it, with one attempt each. A [lister] also lists the
// objects of a prefix. All schemes share the layer above them: a remote file reads on from where a connection
// broke, retries what may pass, and refuses an object that is not the one that was validated.
package objectstore
