// Package filestore keeps the files of the batch API on the disk of the head, under ids.
package filestore
