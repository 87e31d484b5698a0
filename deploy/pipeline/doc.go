// Package pipeline runs files of requests through model servers, from start to end, in any Go
// program. The commands of promptmill use it.
//
//	res, err := pipeline.Run(ctx, pipeline.Config{
//		Inputs:    []string{"prompts.jsonl"},
//		Output:    "answers",
//		ServerURL: "http://localhost:8000",
//	})
//
// [Run] puts all parts of a run into this process. The parts know each other only through the
// bus, a NATS server that is embedded unless Config.Bus names another one:
//
//	prompts.jsonl                                 answers.jsonl.zst
//	      │                                               ▲
//	  producer ──shards──► bus ──results──► collector ──journal
//	                       │ ▲
//	                 shards│ │results
//	                       ▼ │
//	                     worker ◄──requests──► model server
//
// Run guarantees to each of its callers:
//
//   - Each request gets exactly one line in the output, answered or failed, even after crashes. The next
//     Run with the same Config resumes: it finds its journal beside the output, and the store of the
//     embedded server in the state folder.
//   - An output belongs to one run. Run refuses another input or other settings for it, and a second
//     process that works on it.
//   - A limit of Config.Policy that is reached stops the run with a [LimitError]. The next Run resumes it.
//   - Run does not print, exit or take signals. The end of its context stops it gracefully; see
//     [ErrInterrupted]. [Hooks] report its progress, Config.Log gets warnings.
//   - Run has stopped all of its goroutines, servers and processes when it returns.
//
// The parts can also live in several processes, on a bus that stays up:
//
//   - [Submit] puts a run on the bus.
//   - [RunWorkers] has workers for all runs on the bus.
//   - [Serve] starts the bus and collects all runs, [Collect] collects one, [AwaitEnd] waits for one.
//
// A program that makes its own producer, worker and collector runs them as [Parts], which stops
// them in the right order.
//
// Who owns what: a runner (one call of Run) owns the state folder's lock, the journal, the model
// servers and the bus. A runCollector (one call of Collect, and one for each run of Serve) owns the
// journal of its run and a copy of its input. The journal has the truth: all data on the bus can be
// published again from it.
//
// errors.Is and errors.As distinguish errors: [ErrInterrupted], [ErrOtherRun], [ErrInvalidInput],
// statedir.ErrLocked and worker.RefusedError, among others. exit.Hint returns advice for a person,
// with the flags of the promptmill commands, and exit.Code the exit code of a command.
package pipeline
