package scale

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/promptmill/promptmill/deploy/cmdline"
)

// Path is the path of [Handler].
const Path = "/scale"

// ErrNoBus is the error of a process that knows no bus.
var ErrNoBus = errors.New("this process has no bus to ask; promptmill serve has one")

// Handler answers how many boxes are wanted, as JSON for KEDA's metrics-api scaler: the value is a number in each
// answer with status 200. [ParseQuestion] describes its parameters. ask answers, with an error that wraps [ErrNoBus]
// or one that says why the bus cannot be asked now: an autoscaler then leaves the boxes as they are.
func Handler(ask func(Question) (Answer, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")

		refuse := func(status int, err error) {
			w.WriteHeader(status)
			json.NewEncoder(w).Encode(map[string]string{"error": err.Error()})
		}

		q, err := ParseQuestion(r.URL.RawQuery)
		if err != nil {
			refuse(http.StatusBadRequest, err)
			return
		}

		switch answer, err := ask(q); {
		case errors.Is(err, ErrNoBus):
			refuse(http.StatusNotFound, err)
		case err != nil:
			refuse(http.StatusServiceUnavailable, err)
		default:
			json.NewEncoder(w).Encode(answer)
		}
	})
}

// parameters are the parameters of a question.
var parameters = []string{"model", "within", "by", "max"}

// ParseQuestion reads the query of an address: model=NAME, without which all models are asked for; within=DURATION as
// flags have it, or by=TIME; max=N. Its error names the parameter that is wrong.
func ParseQuestion(query string) (q Question, err error) {
	values, err := parseQuery(query)
	if err != nil {
		return q, err
	}

	model, named := values["model"]
	q.Model, q.All = model, !named

	if text, given := values["within"]; given {
		if q.Within, err = cmdline.ParseDuration(text); err != nil || q.Within <= 0 {
			return q, fmt.Errorf("within=%s: want a time of more than 0 such as 8h or 2d", text)
		}
	}

	if text, given := values["by"]; given {
		if q.Within > 0 {
			return q, errors.New("within and by: give one of them")
		}
		if q.By, err = parseTime(text); err != nil {
			return q, err
		}
	}

	if text, given := values["max"]; given {
		if q.Max, err = strconv.Atoi(text); err != nil || q.Max < 1 {
			return q, fmt.Errorf("max=%s: want a number from 1 on", text)
		}
	}

	return q, nil
}

// parseQuery reads a query whose parameters are known and given once.
func parseQuery(query string) (map[string]string, error) {
	lists, err := url.ParseQuery(query)
	if err != nil {
		return nil, fmt.Errorf("the parameters cannot be read: %w", err)
	}

	values := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(lists)) {
		switch list := lists[name]; {
		case !slices.Contains(parameters, name):
			return nil, fmt.Errorf("%q is no parameter: want model, within, by or max", name)
		case len(list) > 1:
			return nil, fmt.Errorf("%s is given twice", name)
		default:
			values[name] = list[0]
		}
	}

	return values, nil
}

// parseTime reads a moment. The plus sign of a zone stands for a space in an address.
func parseTime(text string) (time.Time, error) {
	at, err := time.Parse(time.RFC3339, strings.ReplaceAll(text, " ", "+"))
	if err != nil {
		return at, fmt.Errorf("by=%s: want a time such as 2026-07-01T06:00:00Z", text)
	}
	return at, nil
}
