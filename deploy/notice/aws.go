package notice

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// The protocol of Amazon EC2:
// https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html,
// https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/configuring-instance-metadata-service.html and
// https://docs.aws.amazon.com/autoscaling/ec2/userguide/retrieving-target-lifecycle-state-through-imds.html
const (
	awsIPv6      = "http://[fd00:ec2::254]" // where the instance has IPv6 only
	awsToken     = "/latest/api/token"
	awsAction    = "/latest/meta-data/spot/instance-action"
	awsLifecycle = "/latest/meta-data/autoscaling/target-lifecycle-state"
	awsRebalance = "/latest/meta-data/events/recommendations/rebalance"

	// awsEvery is the interval at which Amazon recommends to look.
	awsEvery = 5 * time.Second
	// awsNotice is the time left after a notice of a spot instance, as Amazon promises it.
	awsNotice = 2 * time.Minute
	// awsTokenTime is the longest life of a token: 6 hours.
	awsTokenTime = 21600 * time.Second
	// awsMaxToken is the longest token that is sent back, in bytes. A real one has 56.
	awsMaxToken = 1 << 10
)

// aws is the metadata service of Amazon EC2, in its version 2, which every instance has.
type aws struct {
	client *client
	every  time.Duration

	token     string
	tokenEnds time.Time
	said      bool // that there is a recommendation
}

func newAWS(bases ...string) *aws {
	return &aws{
		client: newClient(nil, bases...),
		every:  awsEvery,
	}
}

// String returns aws.
func (s *aws) String() string { return "aws" }

func (s *aws) watch(ctx context.Context, w *watcher) {
	defer s.client.close()

	pollUntilEnd(ctx, w, s, s.every, func() error {
		for _, look := range []func(context.Context, *watcher) error{
			s.lookForAction, s.lookForScaleIn, s.lookForRebalance,
		} {
			if err := look(ctx, w); err != nil {
				return err
			}
		}

		return nil
	})
}

// lookForAction announces that the spot instance is taken back.
func (s *aws) lookForAction(ctx context.Context, w *watcher) error {
	a, err := s.readPath(ctx, awsAction)
	if err != nil || a.status == http.StatusNotFound {
		return err
	}

	action, left, err := parseAWSAction(a.body, a.sent)
	w.announce(s, "spot instance: "+action, left)

	return err
}

// lookForScaleIn announces that the group of the instance terminates it. Its hooks give it an unknown time.
func (s *aws) lookForScaleIn(ctx context.Context, w *watcher) error {
	a, err := s.readPath(ctx, awsLifecycle)
	if err != nil || a.status == http.StatusNotFound {
		return err
	}

	if strings.TrimSpace(a.body) == "Terminated" {
		w.announce(s, "auto scaling group: terminate", w.grace)
	}

	return nil
}

// lookForRebalance logs that the spot instance is at risk. That is no reason to leave: most of such instances live on
// for long.
func (s *aws) lookForRebalance(ctx context.Context, w *watcher) error {
	if s.said {
		return nil
	}

	a, err := s.readPath(ctx, awsRebalance)
	if err != nil || a.status == http.StatusNotFound {
		return err
	}

	s.said = true
	w.log.Info().Str("source", s.String()).Msg("the risk that this spot instance is taken back is high; working on")

	return nil
}

// readPath reads a path of the service. The status of the answer is 200 or 404.
func (s *aws) readPath(ctx context.Context, path string) (answer, error) {
	if err := s.renewToken(ctx); err != nil {
		return answer{}, err
	}

	header := http.Header{"X-Aws-Ec2-Metadata-Token": {s.token}}
	a, err := s.client.request(ctx, http.MethodGet, path, header, answerTime)
	switch {
	case err != nil:
		return answer{}, err
	case a.status == http.StatusUnauthorized:
		s.token = ""
		return answer{}, a.describeStatus(path)
	case a.status != http.StatusOK && a.status != http.StatusNotFound:
		return answer{}, a.describeStatus(path)
	}

	return a, nil
}

// renewToken ensures that there is a token which is valid for some time.
func (s *aws) renewToken(ctx context.Context) error {
	if s.token != "" && time.Now().Before(s.tokenEnds) {
		return nil
	}

	header := http.Header{"X-Aws-Ec2-Metadata-Token-Ttl-Seconds": {fmt.Sprint(awsTokenTime.Seconds())}}
	a, err := s.client.request(ctx, http.MethodPut, awsToken, header, answerTime)
	switch {
	case err != nil:
		return fmt.Errorf("%w (in a container, the hop limit of the instance's metadata must be 2)", err)
	case a.status != http.StatusOK:
		return a.describeStatus(awsToken)
	case !isToken(a.body):
		return fmt.Errorf("%s: the answer is no token: %s", awsToken, quote(a.body))
	}

	s.token, s.tokenEnds = a.body, time.Now().Add(awsTokenTime/2)

	return nil
}

// isToken reports whether a text can be sent as a token.
func isToken(text string) bool {
	return text != "" && len(text) <= awsMaxToken &&
		!strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' })
}

// parseAWSAction reads what happens to a spot instance: {"action": "terminate", "time": "2026-09-18T08:22:00Z"}. sent
// is the time of the service. The action and the time left can be used though there is an error: the answer alone
// means that the instance goes.
func parseAWSAction(text string, sent time.Time) (action string, left time.Duration, err error) {
	var event struct {
		Action string `json:"action"`
		Time   string `json:"time"`
	}

	if err := json.Unmarshal([]byte(text), &event); err != nil {
		return "interruption", awsNotice, fmt.Errorf("%s: %w", awsAction, err)
	}

	switch event.Action {
	case "hibernate": // begins at once: https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/hibernate-spot-instances.html
		return event.Action, 0, nil
	case "stop", "terminate":
	default:
		return "interruption", awsNotice, fmt.Errorf("%s: the action is %s", awsAction, quote(event.Action))
	}

	if left, err = readTimeLeft(time.RFC3339, event.Time, sent); err != nil {
		return event.Action, awsNotice, fmt.Errorf("%s: %w", awsAction, err)
	}

	return event.Action, left, nil
}
