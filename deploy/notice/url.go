package notice

import (
	"context"
	"net/http"
	"net/netip"
	"net/url"
	"time"
)

// urlEvery is how often a URL is asked.
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

// String returns the URL without a password.
func (s *webPage) String() string { return s.url.Redacted() }

func (s *webPage) watch(ctx context.Context, w *watcher) {
	defer s.client.close()

	pollUntilEnd(ctx, w, s, s.every, func() error {
		a, err := s.client.ask(ctx, http.MethodGet, s.url.RequestURI(), nil, answerTime)
		switch {
		case err != nil:
			return err
		case a.status == http.StatusNotFound || a.status == http.StatusNoContent:
			return nil
		case a.status != http.StatusOK:
			return a.refuse(s.String())
		}

		left, named, err := parseContent(a.body, a.sent, a.sent)
		if !named {
			left = w.grace
		}

		w.announce(s, "the URL says so", left)

		return err
	})
}
