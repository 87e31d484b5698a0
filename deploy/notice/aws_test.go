package notice

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// awsService is a metadata service of Amazon. It refuses requests without its token.
type awsService struct {
	*metadataService
	token atomic.Pointer[string]
}

func startAWS(t *testing.T) (*awsService, *aws) {
	s := &awsService{}
	s.setToken("AQAAAF-first==")
	s.metadataService = startService(t, func(r *http.Request) int {
		switch {
		case r.URL.Path == awsToken && r.Method != http.MethodPut:
			return http.StatusMethodNotAllowed
		case r.URL.Path == awsToken && r.Header.Get("X-aws-ec2-metadata-token-ttl-seconds") != "21600":
			return http.StatusBadRequest
		case r.URL.Path != awsToken && r.Header.Get("X-aws-ec2-metadata-token") != *s.token.Load():
			return http.StatusUnauthorized
		}

		return 0
	})
	s.set(awsToken, *s.token.Load())

	source := newAWS(s.URL)
	source.every = quick

	return s, source
}

func (s *awsService) setToken(token string) { s.token.Store(&token) }

func TestAWS(t *testing.T) {
	at := func(d time.Duration) string { return time.Now().UTC().Add(d).Format(time.RFC3339) }

	tests := []struct {
		name         string
		path, answer string
		reason       string
		left         time.Duration
		log          string
	}{
		{"terminate", awsAction, `{"action":"terminate","time":"` + at(2*time.Minute) + `"}`,
			"spot instance: terminate", 2 * time.Minute, ""},
		{"stop", awsAction, `{"action": "stop", "time": "` + at(time.Minute) + `"}`,
			"spot instance: stop", time.Minute, ""},
		{"hibernate", awsAction, `{"action": "hibernate", "time": "` + at(time.Minute) + `"}`,
			"spot instance: hibernate", 0, ""},
		{"in the past", awsAction, `{"action": "stop", "time": "2017-09-18T08:22:00Z"}`,
			"spot instance: stop", 0, ""},
		{"in a hundred years", awsAction, `{"action": "stop", "time": "` + at(100*365*24*time.Hour) + `"}`,
			"spot instance: stop", 2 * time.Minute, "more than 7 days away"},
		{"junk", awsAction, "<html>", "spot instance: interruption", 2 * time.Minute, "invalid character"},
		{"another action", awsAction, `{"action": "explode", "time": "` + at(time.Minute) + `"}`,
			"spot instance: interruption", 2 * time.Minute, "explode"},
		{"group", awsLifecycle, "Terminated", "auto scaling group: terminate", 40 * time.Second, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			service, source := startAWS(t)
			w := startWatching(t, 40*time.Second, source)
			service.awaitAsked(t, awsRebalance, 2)

			service.set(tt.path, tt.answer)
			w.expect("aws", tt.reason, tt.left)
			w.expectLog(tt.log)
		})
	}
}

// TestAWSStays: what is no reason to leave.
func TestAWSStays(t *testing.T) {
	service, source := startAWS(t)
	service.set(awsLifecycle, "InService")
	w := startWatching(t, 0, source)

	service.set(awsRebalance, `{"noticeTime": "2026-10-27T08:22:00Z"}`)
	w.expectLog("working on")
	service.awaitAsked(t, awsLifecycle, 2)

	w.expectNone()
	if said := strings.Count(w.log.String(), "working on"); said != 1 {
		t.Errorf("the recommendation is logged %d times", said)
	}
}

// TestAWSTokenExpires: a token that the service does not take any more is renewed.
func TestAWSTokenExpires(t *testing.T) {
	service, source := startAWS(t)
	w := startWatching(t, 0, source)
	service.awaitAsked(t, awsAction, 1)

	service.setToken("AQAAAF-second==")
	service.set(awsToken, "AQAAAF-second==")
	service.set(awsAction, `{"action": "hibernate"}`)
	w.expect("aws", "spot instance: hibernate", 0)
	w.expectLog("401 Unauthorized")
	w.expectLog("answers again")
}

// TestAWSClock: the time left is that of the service's clock.
func TestAWSClock(t *testing.T) {
	service, source := startAWS(t)
	service.header.Set("Date", "Wed, 27 Oct 2027 08:20:00 GMT")
	service.set(awsAction, `{"action": "terminate", "time": "2027-10-27T08:22:00Z"}`)

	startWatching(t, 0, source).expect("aws", "spot instance: terminate", 2*time.Minute)
}

// TestAWSSixOnly: where the address of IPv4 cannot be reached, that of IPv6 is asked.
func TestAWSSixOnly(t *testing.T) {
	service, _ := startAWS(t)
	service.set(awsAction, `{"action": "hibernate"}`)

	source := newAWS("http://127.0.0.1:1", service.URL) // nobody listens at port 1
	startWatching(t, 0, source).expect("aws", "spot instance: hibernate", 0)
}

func TestAWSRefusesTokens(t *testing.T) {
	for _, token := range []string{"", "two words", "a\r\nX-Header: b", strings.Repeat("a", awsMaxToken+1)} {
		service, source := startAWS(t)
		service.set(awsToken, token)
		w := startWatching(t, 0, source)

		w.expectLog("the answer is no token")
		w.expectNone()
	}
}

func FuzzParseAWSAction(f *testing.F) {
	f.Add(`{"action": "terminate", "time": "2017-09-18T08:22:00Z"}`)
	f.Add(`{"action": "hibernate"}`)
	f.Add(`{"action": "stop", "time": "9999-12-31T23:59:59Z"}`)
	f.Add(`[]`)

	sent := time.Date(2017, 9, 18, 8, 20, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, text string) {
		action, left, err := parseAWSAction(text, sent)
		switch {
		case action == "":
			t.Error("no action")
		case left < 0 || left > maxLeft:
			t.Errorf("%s left", left)
		case err != nil && left != awsNotice:
			t.Errorf("%v, and %s left", err, left)
		}
	})
}
