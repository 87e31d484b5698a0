package metrics_test

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/promptmill/promptmill/deploy/metrics"
)

// A program with a registry of its own registers the exporter there.
func ExampleExporter() {
	exporter := &metrics.Exporter{}

	registry := prometheus.NewRegistry()
	if err := registry.Register(exporter); err != nil {
		fmt.Println(err)
		return
	}

	families, err := registry.Gather()
	fmt.Println("without parts there are", len(families), "metrics,", err)

	// Output:
	// without parts there are 0 metrics, <nil>
}
