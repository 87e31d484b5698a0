// Package storetest starts object stores for tests: real servers, and a proxy that injects faults.
//
// [StartVersity] starts versitygw, which has the API of S3 over a folder; [StartMoto] starts moto,
// which checks regions and has buckets in memory; [StartGCS] starts fake-gcs-server. Each test
// has a server of its own, and is skipped where the program is not installed. [Proxy] stands before
// any of them: it counts the requests, and a test has it answer, cut or delay some of them.
package storetest
