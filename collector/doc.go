// Package collector takes the results of a run off the bus, keeps them in a journal, and
// writes the run's output files when every request has its line.
//
//	workers --> results stream
//	                 |
//	   source        |  reads in order, from the journal's position on
//	                 v
//	   session       |  decodes messages, drops duplicates and results that do not fit the run,
//	                 |  and fills frames of lines
//	                 v
//	   journal       |  is synced frame by frame; a request with a line in it is done
//	                 v
//	   finish        |  checks the lines against the input, rewrites the journal
//	                 v
//	   output files, metadata
//
// A [Collector] holds the lease of the run, so one process collects it at a time.
// [Collector.Run] makes a session for each pass over the results. A second pass is needed
// only if the journal was damaged, or lines of other requests were in it.
//
// While a session reads, its syncLoop exchanges state with the bus once a second: it saves
// counts, purges synced messages, renews the lease, polls the workers' announcements and looks
// whether the run was cancelled. When no results come, one of two looks for the reason: the
// republisher has lost requests published again, and the terminator of a run that ends early
// gives each request without a line an error line with the reason. The goroutines of a session
// meet in the ledger, the workerRegistry and the activityTimer, which are safe for concurrent
// use; everything else belongs to one of them.
//
// What else is in the module:
//
//   - journal: the file of an incomplete run
//   - output: names, claims and checks of the output files
//   - atomicfile: files that appear in one step
//   - tail: reading results downstream, while they come
//   - metadata, estimate, report, history: the record of an ended run
package collector
