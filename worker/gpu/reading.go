package gpu

import (
	"math"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Reading is what nvidia-smi says of a card at one time.
type Reading struct {
	Index           int
	Name, UUID      string // "": unknown
	MemoryBytes     int64  // 0: unknown, such as where the memory is the machine's own
	MemoryUsedBytes int64  // 0: unknown

	// Nil: unknown, since the card does not tell.
	PowerWatts, UtilizationPercent, TemperatureC *float64
}

// queryFields is what is asked of nvidia-smi, in the order in which [parseReading] reads it.
const queryFields = "index,uuid,name,memory.total,memory.used,power.draw,utilization.gpu,temperature.gpu,count"

// parseReading reads a line such as
//
//	0, GPU-5c3f0d4e-..., NVIDIA H200, 143771, 4, 76.02, 0, 29, 2
//
// of which the last field is the number of cards, 0 if it does not tell. ok is false if
// the line is anything else: nvidia-smi writes messages between them.
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

// knownField is a field, or "" where nvidia-smi says why it has none: [N/A],
// [Not Supported], [Unknown Error], [GPU is lost], and some of them without brackets.
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

// parseNumber reads a number that is not below zero, nil if it is not known. It takes ok back
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

func parseMebibytes(field string, ok *bool) int64 {
	if n := parseNumber(field, ok); n != nil {
		return int64(*n) << 20
	}
	return 0
}
