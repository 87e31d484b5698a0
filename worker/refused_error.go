package worker

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/promptmill/promptmill/proto"
)

// RefusedError reports that the model server refuses all requests.
type RefusedError struct {
	// Server is the server's URL.
	Server string
	// Path is the endpoint of the request that was refused.
	Path string
	// Status is the status of the refusal.
	Status int
	// Location is the target of a redirect.
	Location string
	// Message is the server's own text, on one line.
	Message string
	// CutAfter is the time after which a proxy or a load balancer in front of the server cuts
	// answers off; 0: none are cut off.
	CutAfter time.Duration

	fix string // the remedy, if the status alone does not show it
}

// newRefusedError describes a refusal of a request to an endpoint.
func newRefusedError(server, path string, c classification) *RefusedError {
	e := &RefusedError{
		Server:   server,
		Path:     path,
		Status:   c.result.Status,
		Location: c.location,
		Message:  proto.ErrorText(c.result.Body),
		fix:      c.fix,
	}
	if c.page != "" {
		e.Status, e.Message = http.StatusOK, c.page
	}

	return e
}

func (e *RefusedError) Error() string {
	if e.CutAfter > 0 {
		return fmt.Sprintf("%s: POST %s at %s fails even alone", cutOffText(e.CutAfter), e.Path, e.Server)
	}

	text := fmt.Sprintf("the model server at %s refuses all requests: POST %s: status %s", e.Server, e.Path,
		nameStatus(e.Status))
	if e.Status == http.StatusOK {
		text += ", with a page in place of an answer"
	}

	if e.Location != "" {
		text += ", Location: " + e.Location
	}

	if e.Message != "" {
		text += ": " + e.Message
	}

	return text
}

// nameStatus returns a status with its name, if it has one.
func nameStatus(status int) string {
	return strings.TrimSpace(fmt.Sprint(status, " ", http.StatusText(status)))
}

// Fix returns the remedy for the refusal.
func (e *RefusedError) Fix() string {
	switch {
	case e.CutAfter > 0:
		return "check that the server is working on requests at all; if it is, " + cutOffFix
	case e.fix != "":
		return e.fix
	case e.Status == http.StatusOK, e.Status == http.StatusNetworkAuthenticationRequired:
		return "check that --url is the URL of the model server itself, not of a page in front of it; " +
			"if a login is needed, set PROMPTMILL_API_KEY or use another way in"
	case e.Status == http.StatusUnauthorized, e.Status == http.StatusForbidden:
		return "set PROMPTMILL_API_KEY to a key that the server takes"
	case e.Status == http.StatusPaymentRequired:
		return fixCredit
	case e.Status == http.StatusUpgradeRequired:
		return "check whether the server needs https:// in --url, or a newer version of HTTP"
	case e.Status == http.StatusProxyAuthRequired:
		return "set the proxy's user and password in HTTP_PROXY, or name the server in NO_PROXY"
	case e.Location != "":
		return "give the URL that it redirects to as --url"
	case e.Status == http.StatusNotFound, e.Status == http.StatusGone:
		return "check that --url is the server's base URL, and that the server has the model that the requests " +
			"name, of the kind that they need: vLLM either generates or embeds"
	}

	return "check that --url is the URL of a model server"
}
