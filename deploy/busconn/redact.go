package busconn

import (
	"net/url"
	"strings"

	"github.com/promptmill/promptmill/worker/modelserver"
)

// RedactURLs returns a URL, or several with commas, without their secrets.
func RedactURLs(urls string) string {
	list := strings.Split(urls, ",")
	for i, text := range list {
		u, err := url.Parse(text)
		if err != nil || u.User != nil || u.RawQuery != "" || strings.Contains(text, "@") {
			list[i] = modelserver.Redact(text)
		}
	}

	return strings.Join(list, ",")
}
