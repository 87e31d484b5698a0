package main

import (
	"bytes"
	"errors"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/promptmill/promptmill/worker/sim"
)

// The answers of all model servers: they follow from these and the prompt.
const (
	modelName   = "m"
	modelSeed   = 7
	modelTokens = 40
	modelSlots  = 16
)

// serveModel is the simulated model server as a process: ADDRESS LOG FLAVOUR FAULTS LUCK.
// It adds to the log the answers that it has given in full, by their ids, with the times
// at which their requests came and they were written. It can be asked to hang, to
// change its speed, and to answer twice.
func serveModel(args []string) error {
	if len(args) != 5 {
		return errors.New("model-server: want ADDRESS LOG FLAVOUR FAULTS LUCK")
	}

	log, err := os.OpenFile(args[1], os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}

	faults, err := sim.ParseFaults(args[3])
	if err != nil {
		return err
	}

	luck, err := strconv.ParseUint(args[4], 10, 64)
	if err != nil {
		return err
	}

	s := sim.New(sim.Config{
		Flavour:   sim.Flavour(args[2]),
		Models:    []string{modelName},
		Slots:     modelSlots,
		TTFT:      150 * time.Millisecond,
		TPOT:      5 * time.Millisecond,
		Spread:    0.3,
		Tokens:    modelTokens,
		Seed:      modelSeed,
		FaultSeed: luck,
		Faults:    faults,
	})

	listener, err := net.Listen("tcp", args[0])
	if err != nil {
		return err
	}

	connections := &doublingListener{Listener: listener}

	mux := http.NewServeMux()
	mux.HandleFunc("POST /chaos", func(_ http.ResponseWriter, r *http.Request) {
		if rate, err := strconv.ParseFloat(r.FormValue("twice"), 64); err == nil {
			dice, _ := strconv.ParseUint(r.FormValue("dice"), 10, 64) // of our own
			connections.set(rate, dice)
			return
		}

		s.Hang(r.FormValue("hang") == "true")
		if slow, err := strconv.Atoi(r.FormValue("slow")); err == nil {
			s.Engine().Set(func(c *sim.EngineConfig) {
				c.TTFT, c.TPOT = 150*time.Millisecond*time.Duration(slow)/10, 5*time.Millisecond*time.Duration(slow)/10
			})
		}
	})

	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		answer, begin := &recordingWriter{ResponseWriter: w}, time.Now()
		s.ServeHTTP(answer, r) // one that is cut off half-way ends in a panic
		if id, ok := strings.CutPrefix(string(answer.begin), `{"id":"chatcmpl-`); ok && len(id) >= 16 {
			writeExecution(log, id[:16], begin, time.Now())
		}
	})

	return http.Serve(connections, mux)
}

// recordingWriter keeps the beginning of an answer.
type recordingWriter struct {
	http.ResponseWriter
	begin []byte
}

func (h *recordingWriter) Write(p []byte) (int, error) {
	if h.begin == nil {
		h.begin = bytes.Clone(p[:min(len(p), 40)])
	}
	return h.ResponseWriter.Write(p)
}

// Unwrap is for http.ResponseController.
func (h *recordingWriter) Unwrap() http.ResponseWriter { return h.ResponseWriter }
