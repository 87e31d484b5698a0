// Package producer reads the input of a run, validates it, cuts it into shards and
// publishes them.
package producer
