package sim

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func BenchmarkServerWithoutLatency(b *testing.B) {
	s := New(Config{})
	b.ReportAllocs()
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			s.ServeHTTP(httptest.NewRecorder(),
				httptest.NewRequest(http.MethodPost, chat, strings.NewReader(`{"model":"m","messages":"a"}`)))
		}
	})
}
