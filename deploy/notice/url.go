package notice

import (
	"context"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"
)

// urlEvery is the interval between two requests to a URL.
const urlEvery = 5 * time.Second

// webPage is a URL that answers 200 once this box goes.
type webPage struct {
	url    *url.URL
	client *client
	every  time.Duration
}

func newWebPage(u *url.URL) *webPage {
	base := url.URL{
		Scheme: u.Scheme,
		User:   u.User,
		Host:   u.Host,
	}

	return &webPage{
		url:    u,
		client: newClient(chooseProxy, base.String()),
		every:  urlEvery,
	}
}

// chooseProxy returns the proxy of the environment, unless the server has a link-local address, which no proxy can
// reach.
func chooseProxy(r *http.Request) (*url.URL, error) {
	if address, err := netip.ParseAddr(r.URL.Hostname()); err == nil && address.IsLinkLocalUnicast() {
		return nil, nil
	}
	return http.ProxyFromEnvironment(r)
}

// String returns the URL without its secrets. It stands in logs, and all who see the run see it as the reason of the
// departure.
func (s *webPage) String() string { return showURL(s.url) }

// showURL returns a URL without its password and the values of its query, which may be keys. The names stay.
func showURL(u *url.URL) string {
	shown := *u
	if shown.RawQuery != "" {
		names := strings.Split(shown.RawQuery, "&")
		for i, pair := range names {
			if name, _, ok := strings.Cut(pair, "="); ok {
				names[i] = name + "=xxxxx"
			} else {
				names[i] = "xxxxx"
			}
		}
		shown.RawQuery = strings.Join(names, "&")
	}

	return shown.Redacted()
}

func (s *webPage) watch(ctx context.Context, w *watcher) {
	defer s.client.close()

	pollUntilEnd(ctx, w, s, s.every, func() error {
		a, err := s.client.request(ctx, http.MethodGet, s.url.RequestURI(), nil, answerTime)
		switch {
		case err != nil:
			return err
		case a.status == http.StatusNotFound || a.status == http.StatusNoContent:
			return nil
		case a.status != http.StatusOK:
			return a.describeStatus(s.String())
		}

		left, named, err := parseContent(a.body, a.sent, a.sent)
		if !named {
			left = w.grace
		}

		w.announce(s, "the URL says so", left)

		return err
	})
}
