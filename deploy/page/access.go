package page

import (
	"cmp"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"github.com/promptmill/promptmill/deploy/apikey"
	"github.com/promptmill/promptmill/deploy/httpserver"
	"github.com/promptmill/promptmill/deploy/statedir"
)

// SecretFile is the name of the file in the state folder with the secret of the sessions. Deleting it ends them all.
const SecretFile = "page-secret"

// secretBytes is the length of that secret.
const secretBytes = 32

// sessionLife is the time after which a browser must sign in again.
const sessionLife = 30 * 24 * time.Hour

// access knows who may look at the page.
type access struct {
	keys *apikey.File
	// secret makes the cookies of sessions, which have no keys in them. It is in a file, so that sessions survive a
	// restart of the head.
	secret []byte
	// log gets the faults of the keys, one a minute.
	log zerolog.Logger
}

// newAccess reads the secret of the sessions, and makes it the first time.
func newAccess(keys *apikey.File, state string, log zerolog.Logger) (*access, error) {
	secret, err := loadSecret(state)
	if err != nil {
		return nil, err
	}

	return &access{
		keys:   keys,
		secret: secret,
		log:    log.Sample(&zerolog.BurstSampler{Burst: 1, Period: time.Minute}),
	}, nil
}

// loadSecret reads the secret of the sessions of a state folder.
func loadSecret(state string) ([]byte, error) {
	if err := statedir.Make(state, state); err != nil {
		return nil, err
	}

	path := filepath.Join(state, SecretFile)
	secret, err := os.ReadFile(path)
	if err == nil && len(secret) == secretBytes {
		return secret, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read the secret of the page's sessions: %w", err)
	}

	secret = make([]byte, secretBytes)
	rand.Read(secret) // never fails (crypto/rand, Go 1.24)

	// Of two processes that start at once, one makes the file last, and the sessions of the other end.
	if err := os.WriteFile(path, secret, 0o600); err != nil {
		return nil, fmt.Errorf("store the secret of the page's sessions: %w", err)
	}

	return secret, nil
}

// viewer is who sends a request.
type viewer struct {
	// key is the key of the request. The zero value: none is needed.
	key apikey.Key
	// needed reports that a key is needed.
	needed bool
}

// owner is the id of the key whose runs the viewer sees; empty: all.
func (v viewer) owner() string {
	if !v.key.OwnOnly {
		return ""
	}
	return v.key.ID
}

// identify returns who sends a request, or the refusal.
func (a *access) identify(r *http.Request) (viewer, *refusal) {
	required, err := a.keys.Required()
	switch {
	case err != nil:
		return viewer{}, a.refuseUnreadable(err)
	case required && isCrossSiteChange(r), !required && httpserver.IsForeign(r):
		return viewer{}, refuseForeign(required)
	case !required:
		return viewer{}, nil
	}

	secret := apikey.SecretOf(r)
	if secret != "" {
		return a.authenticate(secret)
	}

	cookie, err := r.Cookie(a.cookieName())
	if err != nil {
		return viewer{needed: true}, refuse(http.StatusUnauthorized, "key_required",
			"This page needs an API key: promptmill key create makes one on the server.")
	}

	key, known, err := a.readSession(cookie.Value, time.Now())
	switch {
	case err != nil:
		return viewer{}, a.refuseUnreadable(err)
	case !known:
		return viewer{needed: true}, refuse(http.StatusUnauthorized, "unknown_key",
			"The session has ended, or its API key was revoked. Sign in again.")
	}

	return viewer{key, true}, nil
}

// authenticate returns the viewer with a secret.
func (a *access) authenticate(secret string) (viewer, *refusal) {
	key, known, err := a.keys.Authenticate(secret)
	switch {
	case err != nil:
		return viewer{}, a.refuseUnreadable(err)
	case !known:
		return viewer{needed: true}, refuse(http.StatusUnauthorized, "unknown_key",
			"The API key is wrong or was revoked: promptmill key list shows the keys, on the server.")
	}

	return viewer{key, true}, nil
}

// refuseUnreadable returns the refusal of all requests while the file of the keys cannot be read, and logs the reason.
func (a *access) refuseUnreadable(err error) *refusal {
	a.log.Error().Err(err).Msg("failed to read the API keys; the page refuses all requests")
	return refuse(http.StatusServiceUnavailable, "unavailable",
		"The server cannot read its API keys. Its log has the reason.")
}

// isCrossSiteChange reports whether the page of another site has a browser change something, with the cookie that
// the browser has.
func isCrossSiteChange(r *http.Request) bool {
	return r.Method != http.MethodGet && r.Method != http.MethodHead && httpserver.IsCrossSite(r)
}

// refuseForeign returns the refusal of a request that comes from another site, or that needs a key.
func refuseForeign(required bool) *refusal {
	if required {
		return refuse(http.StatusForbidden, "other_site", "This request came from the page of another site.")
	}

	return refuse(http.StatusForbidden, "other_site", "This request came from the page of another site, through a proxy "+
		"or under another name than localhost. It needs an API key: promptmill key create makes one.")
}

// cookieName returns the name of the cookie of sessions. It differs between the heads of a host, which have their
// cookies in common, whatever their ports are.
func (a *access) cookieName() string {
	sum := sha256.Sum256(append([]byte("promptmill page cookie\n"), a.secret...))
	return "promptmill_" + hex.EncodeToString(sum[:4])
}

// newSession returns the cookie of a session of a key. It has the id of the key, its end, and a code that only this
// head makes: of the key's hash too, so that it ends with the key.
func (a *access) newSession(key apikey.Key, r *http.Request, now time.Time) *http.Cookie {
	head := key.ID + "." + strconv.FormatInt(now.Add(sessionLife).Unix(), 10)
	c := a.emptyCookie(r)
	c.Value, c.MaxAge = head+"."+a.sign(head, key), int(sessionLife.Seconds())

	return c
}

// emptyCookie returns the cookie of a session that has ended.
func (a *access) emptyCookie(r *http.Request) *http.Cookie {
	return &http.Cookie{
		Name:     a.cookieName(),
		Path:     "/",
		MaxAge:   -1,
		HttpOnly: true,
		Secure:   isEncrypted(r),
		SameSite: http.SameSiteStrictMode,
	}
}

// isEncrypted reports whether the browser's connection is encrypted: to this server, or to a proxy on this machine
// that says so.
func isEncrypted(r *http.Request) bool {
	host, _, _ := net.SplitHostPort(r.RemoteAddr)
	ip := net.ParseIP(host)

	return r.TLS != nil || ip != nil && ip.IsLoopback() && strings.EqualFold(r.Header.Get("X-Forwarded-Proto"), "https")
}

// sign returns the code of a session.
func (a *access) sign(head string, key apikey.Key) string {
	mac := hmac.New(sha256.New, a.secret)
	fmt.Fprintf(mac, "promptmill page session\n%s\n%s", key.Hash, head)

	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// readSession returns the key of a session, and whether it goes on.
func (a *access) readSession(value string, now time.Time) (apikey.Key, bool, error) {
	head, code, ok := cutLast(value, ".")
	id, end, _ := cutLast(head, ".")
	seconds, err := strconv.ParseInt(end, 10, 64)
	if !ok || err != nil || now.Unix() >= seconds {
		return apikey.Key{}, false, nil //nolint:nilerr // what does not parse is no cookie of this head
	}

	key, known, err := a.keys.Find(id)
	if err != nil || !known || !hmac.Equal([]byte(code), []byte(a.sign(head, key))) {
		return apikey.Key{}, false, err
	}

	return key, true, nil
}

// cutLast cuts a text at the last separator.
func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}

	return s[:i], s[i+len(sep):], true
}

// describe returns who looks at the page, for its script.
func (v viewer) describe(signedIn bool, version string) Session {
	return Session{
		KeyNeeded: v.needed,
		SignedIn:  signedIn,
		Key:       cmp.Or(v.key.Name, v.key.ID),
		MayChange: signedIn && !v.key.ReadOnly,
		OwnOnly:   v.key.OwnOnly,
		Version:   version,
	}
}
