package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// anyObject is any object of Kubernetes, as it is written.
type anyObject map[string]any

// at returns what is at a path of fields; nil: nothing.
func (o anyObject) at(path ...string) any {
	var here any = o
	for _, field := range path {
		switch fields := here.(type) {
		case anyObject:
			here = fields[field]
		default:
			return nil
		}
	}

	return here
}

// fields returns the object at a path of fields.
func (o anyObject) fields(path ...string) anyObject {
	found, _ := o.at(path...).(anyObject)
	return found
}

// list returns the objects of a list at a path of fields.
func (o anyObject) list(path ...string) (all []anyObject) {
	found, _ := o.at(path...).([]any)
	for _, item := range found {
		if fields, ok := item.(anyObject); ok {
			all = append(all, fields)
		}
	}

	return all
}

// kind returns the kind of the object.
func (o anyObject) kind() string { return fmt.Sprint(o["kind"]) }

// parseObjects returns the objects of a stream of documents.
func parseObjects(t *testing.T, text string) (all []anyObject) {
	t.Helper()

	for d := yaml.NewDecoder(strings.NewReader(text)); ; {
		var o anyObject
		err := d.Decode(&o)
		if errors.Is(err, io.EOF) {
			return all
		}
		must(t, err)
		if o != nil {
			all = append(all, o)
		}
	}
}

// chosen returns those of the objects whose labels a selector has. No selector chooses none.
func chosen(selector anyObject, all []anyObject, labels ...string) (found []anyObject) {
	for _, o := range all {
		has := o.fields(labels...)
		if len(selector) > 0 && !slices.ContainsFunc(slices.Collect(maps.Keys(selector)), func(name string) bool {
			return has[name] != selector[name]
		}) {
			found = append(found, o)
		}
	}

	return found
}

// portNames returns the names of the ports of a pod's containers.
func portNames(pod anyObject) (names []any) {
	for _, c := range slices.Concat(pod.list("initContainers"), pod.list("containers")) {
		for _, port := range c.list("ports") {
			names = append(names, port["name"])
		}
	}

	return names
}

// Selectors choose what they are for, and names of ports and of volumes are those of the pods: Kubernetes takes a
// manifest with others, and then nothing is reached, kept or scraped.
func TestHelmWiring(t *testing.T) {
	t.Parallel()

	for name, tt := range helmCases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testHelmWiring(t, parseObjects(t, renderChart(t, tt.values)))
		})
	}
}

func testHelmWiring(t *testing.T, all []anyObject) {
	ofKind := func(kinds ...string) (found []anyObject) {
		for _, o := range all {
			if slices.Contains(kinds, o.kind()) {
				found = append(found, o)
			}
		}

		return found
	}
	pods, services := ofKind("StatefulSet", "Deployment"), ofKind("Service")

	for _, o := range all {
		path := map[string][]string{
			"Service":             {"spec", "selector"},
			"StatefulSet":         {"spec", "selector", "matchLabels"},
			"Deployment":          {"spec", "selector", "matchLabels"},
			"NetworkPolicy":       {"spec", "podSelector", "matchLabels"},
			"PodDisruptionBudget": {"spec", "selector", "matchLabels"},
			"PodMonitor":          {"spec", "selector", "matchLabels"},
		}[o.kind()]
		if path == nil {
			continue
		}

		found := chosen(o.fields(path...), pods, "spec", "template", "metadata", "labels")
		if len(found) != 1 {
			t.Fatalf("%s %v chooses %d pods, want 1", o.kind(), o.at("metadata", "name"), len(found))
		}

		known := portNames(found[0].fields("spec", "template", "spec"))
		for _, port := range wantedPorts(o) {
			if !slices.Contains(known, port) {
				t.Errorf("%s %v wants the port %v, and its pod has %v", o.kind(), o.at("metadata", "name"), port, known)
			}
		}
	}

	for _, monitor := range ofKind("ServiceMonitor") {
		scraped := 0
		for _, s := range chosen(monitor.fields("spec", "selector", "matchLabels"), services, "metadata", "labels") {
			for _, port := range s.list("spec", "ports") {
				if port["name"] == monitor.list("spec", "endpoints")[0]["port"] {
					scraped++
				}
			}
		}
		if scraped != 1 {
			t.Errorf("the ServiceMonitor finds its port %d times, want 1", scraped)
		}
	}

	for _, o := range ofKind("ScaledObject") {
		if found := o.at("spec", "scaleTargetRef", "name"); found != ofKind("Deployment")[0].at("metadata", "name") {
			t.Errorf("KEDA scales %v", found)
		}
	}

	for _, o := range pods {
		checkMounts(t, o)
	}
}

// wantedPorts returns the ports that an object names.
func wantedPorts(o anyObject) (names []any) {
	for _, port := range o.list("spec", "ports") {
		names = append(names, port["targetPort"])
	}
	for _, rule := range o.list("spec", "ingress") {
		for _, port := range rule.list("ports") {
			names = append(names, port["port"])
		}
	}
	for _, endpoint := range o.list("spec", "podMetricsEndpoints") {
		names = append(names, endpoint["port"])
	}
	for _, c := range o.list("spec", "template", "spec", "containers") {
		for _, probe := range []string{"livenessProbe", "readinessProbe"} {
			names = append(names, c.at(probe, "httpGet", "port"))
		}
	}

	return names
}

// checkMounts refuses a mount of a volume that a pod does not have.
func checkMounts(t *testing.T, o anyObject) {
	t.Helper()

	pod := o.fields("spec", "template", "spec")
	var volumes []any
	for _, v := range pod.list("volumes") {
		volumes = append(volumes, v["name"])
	}
	for _, claim := range o.list("spec", "volumeClaimTemplates") {
		volumes = append(volumes, claim.at("metadata", "name"))
	}

	for _, c := range slices.Concat(pod.list("initContainers"), pod.list("containers")) {
		for _, mount := range c.list("volumeMounts") {
			if !slices.Contains(volumes, mount["name"]) {
				t.Errorf("the container %v mounts %v, and the pod has %v", c["name"], mount["name"], volumes)
			}
		}
	}
}
