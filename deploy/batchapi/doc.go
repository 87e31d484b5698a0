// Package batchapi serves the batch API over HTTP: Files, Uploads, Batches and Models of OpenAI's
// API, as its SDKs send and read them.
//
//	handler, err := batchapi.New(batchapi.Config{
//		Files:   store,                     // files on disk
//		Batches: batchapi.Runs(service),    // batches, which are runs
//		Models:  bus.Heartbeats.Workers,    // the announcements of the workers
//	})
//
// Config.Run serves a single run in place of Files and Batches. Routes that would create or delete
// something refuse to then, and are not in /openapi.json.
//
// The package translates, and keeps no state: files belong to [filestore], batches to the package
// batch. A request passes these places:
//
//   - server.ServeHTTP (server.go) recovers from panics, checks the API key, and answers paths that
//     are unknown with an error in OpenAI's shape. What a handler needs of the exchange (request,
//     writer, key) travels in its context.
//   - The router is net/http's, filled by huma, which also checks the parameters and writes
//     /openapi.json (operation.go).
//   - The handlers are in a file for each resource: files.go, uploads.go, batches.go, models.go. The
//     objects that they answer are in wire.go.
//   - Bodies are read as streams, and go to the disk as they come: forms in form.go, the requests of
//     a batch in create.go.
//   - content.go answers the bytes of files: of inputs from the disk, of outputs from the journal or
//     the packed file of their run.
//
// Each error becomes a [failure] (failure.go): a status on which the SDKs raise the right class, and
// a sentence for the reader. A client must not repeat a request that cannot succeed, so such a
// request never gets a status on which the SDKs try again (408, 409, 429, 5xx), or gets the header
// x-should-retry: false with it.
package batchapi
