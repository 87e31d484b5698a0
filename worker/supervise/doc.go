// Package supervise starts a model server and keeps it running: it knows when the server is
// ready, reads from the log how much memory it has and what its start took so long for, starts it
// again when it dies, and leaves none of its processes behind, not even when this process is killed.
//
//	        Run
//	         │
//	         ▼
//	Loading ────────── Config.Ready returns nil ──────────▶ Ready
//	   ▲ │                                                    │
//	   │ └── it dies, or Restart ──▶ Waiting ◀── it dies, or ─┘
//	   │                               │         Restart
//	   └──── after a pause of 1 s ─────┤
//	         to 1 min                  └── it was never ready, or died 5 times in a row
//	                                       without being so ──▶ Stopped, with ErrStart
//
// When the context of Run ends, the server gets SIGTERM, and SIGKILL after Config.Grace; then
// it is Stopped.
//
// A [Process] owns one serverProcess at a time: the leader, which becomes the server, and a
// guard that kills the server's process group when this process dies. It owns the log file,
// too, which the server writes by its own descriptor, and from which a memoryReader picks the
// sizes of weights and cache, and a loadReader the times of the phases, while the server loads.
// A full log is put aside, also while the server writes.
package supervise
