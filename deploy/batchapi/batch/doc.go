// Package batch makes runs of the batches of OpenAI's API, and batches of these runs.
package batch
