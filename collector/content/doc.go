// Package content reads the text of the answered or of the failed lines of a run, from any
// offset, while the run works and afterwards.
//
//	run works:     NAME.part.zst      frames up to the synced count --+
//	                                                                  +--> CopyRange(offset, n)
//	run complete:  NAME.jsonl.zst, NAME.errors.jsonl.zst  ------------+
//
// The bytes at an offset are the same in both, since the final files are written in the order
// of the journal. So a client that has read the first N bytes of a running run reads the rest
// from byte N on later. The exception is an output that is written in the order of its input
// ([output.Format], Ordered): it has other bytes than its journal.
//
// The answered lines of a run that is retried begin with the same bytes as before, and its
// new answers follow. The text of its failed lines begins again, since their requests run
// again.
//
// A [Content] is the text at the moment of [Open]. It holds the open files, so it stays
// readable when the run completes meanwhile, or is retried or deleted.
//
// How a range is found depends on the file:
//
//	journal            the headers of its frames have the sizes of both kinds of lines
//	seekable output    its seek table ([output.ReadSeekTable])
//	one large frame    it is unpacked from its beginning
//
// Frames are unpacked several at a time, and written when their checksum is right. One large frame is
// unpacked while its bytes before are written.
package content
