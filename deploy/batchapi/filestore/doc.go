// Package filestore keeps the files of the batch API on the disk of the head, under ids.
//
// A file exists or does not, whatever ends the process. Its bytes are written first and its
// metadata last, in one step ([Store.Create]; [Store.Begin] and [Pending.Commit] if the metadata
// comes after the bytes):
//
//	DIR/lock                      held while the store is open
//	DIR/files/file-…              the bytes of a file
//	DIR/files/file-….json         its metadata: with it, the file exists
//	DIR/files/file-….tmp          its bytes until the metadata is there, and once it is removed
//	DIR/uploads/upload_….json     an upload, until a day after it has ended
//	DIR/uploads/upload_…/part_…   the parts of a pending upload
//	….tmp                         not whole yet
//
// [Open] removes temporary files without metadata, and parts of uploads that have ended. No crash
// leaves data under its own name without metadata: that comes from a partial restore or from a
// hand, so Open logs it and leaves it alone.
// All metadata is also in memory, so that lookups and lists do not read the disk. Names on the
// disk are ids that the store has made. A name or an id of a client never becomes a path.
//
// An upload is a file that comes in parts, as OpenAI's API has it: [Store.CreateUpload],
// [Store.AddPart], [Store.CompleteUpload]. The metadata of the file names the upload, and so it
// completes the upload in the same step. OpenAI's limits (64 MB a part, 8 GB an upload) do not
// apply: the disk is the limit, less a reserve for the bus and the outputs (room.go).
//
// Expired files stay until [Store.RemoveExpired] is called, which its owner does now and then.
package filestore
