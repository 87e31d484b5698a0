package gpu

import (
	"math"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Reading is nvidia-smi's report of a card at one time.
type Reading struct {
	// Index is the card's number in nvidia-smi.
	Index int
	// Name and UUID are "" if unknown.
	Name, UUID string
	// MemoryBytes is 0 if unknown, such as where the memory is the machine's own.
	MemoryBytes int64
	// MemoryUsedBytes is 0 if unknown.
	MemoryUsedBytes int64
	// PowerWatts, UtilizationPercent and TemperatureC are nil if the card does not report them.
	PowerWatts, UtilizationPercent, TemperatureC *float64
}

// queryFields are the fields that nvidia-smi is asked for, in the order in which parseReading
// expects them.
const queryFields = "index,uuid,name,memory.total,memory.used,power.draw,utilization.gpu,temperature.gpu,count"

// parseReading parses a line such as
//
//	0, GPU-5c3f0d4e-..., NVIDIA H200, 143771, 4, 76.02, 0, 29, 2
//
// of which the last field is the number of cards, 0 if it is unknown. ok is false if the line
// is anything else: nvidia-smi writes messages between the readings.
func parseReading(line string) (r Reading, count int, ok bool) {
	fields := strings.Split(line, ", ")
	if len(fields) != strings.Count(queryFields, ",")+1 || !utf8.ValidString(line) ||
		strings.ContainsFunc(line, unicode.IsControl) {
		return r, 0, false
	}

	for i, field := range fields {
		fields[i] = strings.TrimSpace(field)
	}

	index, err := strconv.ParseUint(fields[0], 10, 16)
	if err != nil {
		return r, 0, false
	}

	r.Index, ok = int(index), true
	r.UUID, r.Name = knownField(fields[1]), knownField(fields[2])
	r.MemoryBytes, r.MemoryUsedBytes = parseMebibytes(fields[3], &ok), parseMebibytes(fields[4], &ok)
	r.PowerWatts = parseNumber(fields[5], &ok)
	r.UtilizationPercent = parseNumber(fields[6], &ok)
	r.TemperatureC = parseNumber(fields[7], &ok)
	if n := parseNumber(fields[8], &ok); n != nil {
		count = int(min(*n, math.MaxUint16))
	}

	if !ok {
		return Reading{}, 0, false
	}

	return r, count, true
}

// knownField returns a field, or "" if nvidia-smi reports that there is none: [N/A], [Not
// Supported], [Unknown Error], [GPU is lost], and some of them without brackets.
func knownField(field string) string {
	if strings.HasPrefix(field, "[") && strings.HasSuffix(field, "]") {
		return ""
	}

	switch field {
	case "N/A", "Not Supported", "Unknown Error", "GPU is lost", "ERR!":
		return ""
	}

	return field
}

// parseNumber parses a number that is not below zero, nil if it is unknown. It sets ok to false
// if the field is anything else.
func parseNumber(field string, ok *bool) *float64 {
	text := knownField(field)
	if text == "" && field != "" {
		return nil
	}

	n, err := strconv.ParseFloat(text, 64)
	if err != nil || !(n >= 0 && n <= math.MaxInt32) {
		*ok = false
		return nil
	}

	return &n
}

// parseMebibytes parses a size, in bytes; 0 if it is unknown.
func parseMebibytes(field string, ok *bool) int64 {
	if n := parseNumber(field, ok); n != nil {
		return int64(*n) << 20
	}
	return 0
}
