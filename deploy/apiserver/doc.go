// Package apiserver puts the parts of the batch API together: an HTTP server, the keys of its clients,
// files and batches on the disk of this machine, metrics and checks.
//
//	api, err := apiserver.Open(apiserver.Config{Listen: httpserver.Config{Address: "127.0.0.1:8080"}, ...})
//	...
//	defer api.Close()
//	err = pipeline.Serve(ctx, pipeline.ServeConfig{API: api.Serve, Collects: api.Collects, ...})
//
// [Open] listens, so that an address that is taken is refused before anything is changed. [Server.Serve]
// works with the bus until its context ends: then it answers no new request, finishes the others, and
// stops the batches last. [Server.ServeRun] does the same for the one run of pipeline.Run, as the only
// batch.
package apiserver
