// Package gpu reads the graphics cards of this machine through nvidia-smi: [Query] once, or a
// [Watch] with one process that stays and writes a line for each card every second.
//
//	Watch.Run ── nvidia-smi --loop=1 ──▶ outputParser ──▶ a set of Readings ──▶ Watch.Now
//	    ▲                │                                 energyMeter: power over time ▲
//	    └── it ended: restart after 1 s, 2 s, ... 1 min
//
// On a machine without cards both return [ErrNone].
package gpu
