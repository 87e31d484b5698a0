package quality

import (
	"errors"
	"fmt"

	"github.com/promptmill/promptmill/proto/jsonscan"
)

// sample is the file of the requests of a run.
type sample struct {
	*lineFile

	scan jsonscan.Scanner
}

// openSample opens a sample.
func openSample(path string) (*sample, error) {
	file, err := openLineFile(path, func([]byte) error { return nil })
	if err != nil {
		return nil, fmt.Errorf("open the sample: %w", err)
	}

	return &sample{lineFile: file}, nil
}

// request returns the custom_id, a JSON string, and the body of the request of an index, valid until the next call.
func (s *sample) request(index int64) (customID, body []byte, err error) {
	line, err := s.line(index)
	if err != nil {
		return nil, nil, fmt.Errorf("open the sample: %w", err)
	}

	s.scan.Reset(line)
	for s.scan.Enter(); s.scan.Next(); {
		switch string(s.scan.Name()) {
		case "custom_id":
			customID = s.scan.Value()
		case "body":
			body = s.scan.Value()
		}
	}

	err = s.scan.End()
	if err == nil && (len(customID) == 0 || customID[0] != '"' || len(body) == 0 || body[0] != '{') {
		err = errors.New(`it has no "custom_id" that is a text, or no "body" that is an object`)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("read the sample %s, request %d: %w", s.path, index+1, err)
	}

	return customID, body, nil
}
