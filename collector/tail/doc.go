// Package tail reads the results of a run while they come, as tail -f does with a file.
//
//	results stream --> Reader --> write(lines)
//	                     |
//	                     v
//	                  cursor: the position, under the reader's name
//
// A [Reader] gives out each request's line once, even if the bus delivers it twice. It asks
// for stored messages and has no consumer, so the run does not notice it: a slow reader
// misses messages that have left the bus, and returns the indexes of these requests.
//
// A reader with a name stores its cursor on the bus, and the next reader of that name
// resumes there. What it was given since the cursor was stored, a second at most, comes
// again after a crash.
package tail
