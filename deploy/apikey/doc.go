// Package apikey keeps the keys of the batch API in one file, which has only their hashes.
//
// [File.Create] makes a key and returns its secret, which is nowhere afterwards. [File.Revoke] removes
// one. Both replace the whole file in one step and under a lock, so processes that change it at once
// lose nothing. [File.Authenticate] finds the key of a secret; it sees a changed file at the next call,
// in a process that has run for weeks too.
//
// While the file is not there, every secret is accepted ([File.Require] accepts none). Once it was there,
// this process wants a key, even if all are revoked. A file that cannot be read accepts none, nor does one
// without a key.
package apikey
