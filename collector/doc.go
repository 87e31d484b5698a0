// Package collector takes the results of a run off the bus, journals them into a
// file, and makes the run's output of it when every request has its line.
package collector
