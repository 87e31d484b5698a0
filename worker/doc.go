// Package worker pulls shards from the bus, runs their requests against an
// OpenAI-compatible model server and publishes the answers.
package worker
