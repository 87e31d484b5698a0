// Package upload copies the output of a run into an object store.
//
// A run writes its journal and its files on a disk of its machine, where they stay. A [Target]
// copies them:
//
//	while the run works   NAME.part/OFFSET.zst    the synced journal, in pieces
//	at its end            NAME.jsonl.zst, ...     the files
//	last                  NAME.meta.json          the metadata: all of the run is there
//
// OFFSET is the place of a piece in the journal, in hexadecimal, so the pieces in the order of
// their names are the journal, and zstd -dc prints its lines. They are deleted when the
// metadata is there.
//
// Each object has the id of its run in its metadata. An object that another program or another
// run has written is not replaced: [Target.Prepare] refuses it before the run begins, and
// [Target.Follow] ends the later one of two runs that begin at the same time. A process can die at
// any step: the next one compares the objects with the local files, and copies the missing ones.
package upload
