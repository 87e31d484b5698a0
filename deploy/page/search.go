package page

import "net/http"

// searches has room for the searches that go on at once.
type searches struct{}

func newSearches() *searches { return &searches{} }

// serveSearch looks for a custom_id.
func (h *head) serveSearch(w http.ResponseWriter, r *http.Request, v viewer) *refusal {
	return refuse(http.StatusServiceUnavailable, "unavailable", "Not yet.")
}
