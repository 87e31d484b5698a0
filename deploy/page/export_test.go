package page

import "net/http"

// AddFiles adds the files of the page to a handler, and the headers to all answers, as a head does.
func AddFiles(mux *http.ServeMux) (http.Handler, error) {
	assets, err := loadAssets()
	if err != nil {
		return nil, err
	}

	h := &head{assets: assets}

	return h.addFiles(mux), nil
}
