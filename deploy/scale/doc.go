// Package scale says how many boxes the work on a bus needs, as one number: for an autoscaler that starts and stops
// boxes.
//
// A [Meter] learns from each look at the bus what a box of each model does in a second, and remembers it while no box
// works. [Meter.Want] divides the requests that are left by it and by the time that is left. A box is a host: all
// workers of one host belong to it.
//
// The number of messages that wait on a bus is no such number: a message has few requests or hundreds, these take
// milliseconds or minutes, and the queue of a run that is paused is as long as that of one that works.
package scale
