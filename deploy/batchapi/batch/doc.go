// Package batch makes runs of the batches of OpenAI's API. A batch is a run: its id is batch_
// and the run's id, and whatever holds for a run holds for it.
//
//	Create ──► record on disk ──► submitter ──► run on the bus ──► collector of pipeline.Serve
//	                  ▲                               │ manifest          │ journal, files
//	                  └─────────── follower ◄─────────┘                   ▼
//	           Get, List                                            OpenOutput
//
// A [Service] keeps a record of each batch: one JSON file that holds what the run cannot, such
// as the owner, the ids of the files and the times of the states. [Service.Create] writes the
// record and returns; [Service.Run] does the rest. Its submitter puts the oldest batches on the
// bus, three at once (submitter.go). Its follower reads the manifests of the runs and moves the
// records along the states of OpenAI's API (follower.go, record.go). A run that is retried opens its
// batch again. A process that is killed
// leaves no step half done: the next one finds the record, and submits the run again under the
// same id, or finds it on the bus.
//
// Records are changed one at a time, on disk first ([Service.change]). Readers see records that
// never change, so they wait for no disk.
//
// [Service.Cancel] ends a batch, and [Service.OpenOutput] reads the answers, of the journal
// while the run is at work. The batches of a folder are collected by the server that has it
// alone: see [IsIn].
//
// A [Single] is a run as a batch that a process has made and collects itself, as promptmill run does. It
// has no record: what a record would have is derived from the manifest (single.go).
package batch
