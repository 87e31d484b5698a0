package main

import (
	"archive/zip"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/promptmill/promptmill/deploy/exit"
	"github.com/promptmill/promptmill/worker/sim"
)

// helmCases are sets of values, and the numbers of the objects that they make.
var helmCases = map[string]struct {
	values string
	kinds  map[string]int
}{
	"elsewhere": {
		values: "workers: {urls: [http://vllm.models.svc:8000, http://vllm-2.models.svc:8000]}",
		kinds: map[string]int{
			"Service": 2, "StatefulSet": 1, "Deployment": 1, "NetworkPolicy": 2, "PodDisruptionBudget": 1,
		},
	},
	"sidecar": {
		values: `
head: {identitySecret: identity, scaleWithin: 1d12h, podDisruptionBudget: {enabled: true}}
monitors: {enabled: true, labels: {release: prometheus}}
workers:
  joinSecret: "123"
  runtimeClassName: nvidia
  graceSeconds: 300
  volumes: [{name: weights, persistentVolumeClaim: {claimName: weights}}]
  model:
    enabled: true
    image: vllm/vllm-openai:v0.32.0
    args: [--model, Qwen/Qwen3-8B]
    env: [{name: HF_HOME, value: /weights}]
    volumeMounts: [{name: weights, mountPath: /weights}]
    startupProbe: {httpGet: {path: /health, port: model}, failureThreshold: 360}
  autoscaling: {enabled: true, model: "Qwen/Qwen3-8B&x", within: 8h, max: 20}`,
		kinds: map[string]int{
			"Service": 2, "StatefulSet": 1, "Deployment": 1, "NetworkPolicy": 2, "PodDisruptionBudget": 2,
			"ServiceMonitor": 1, "PodMonitor": 1, "ScaledObject": 1,
		},
	},
	"head alone": {
		values: `
imagePullSecrets: [{name: regcred}]
head:
  api: {enabled: true, page: true, keysSecret: keys}
  service: {type: LoadBalancer, annotations: {a: b}}
  advertise: head.example:4333
  storage: {className: "1", size: 1Ti}
  tolerations: [{key: a, operator: Exists}]
  nodeSelector: {a: b}
workers: {enabled: false}
networkPolicy: {busFrom: [{ipBlock: {cidr: 10.0.0.0/8}}], metricsFrom: []}`,
		kinds: map[string]int{"Service": 2, "StatefulSet": 1, "NetworkPolicy": 1},
	},
	"no policies": {
		values: `
workers: {urls: [http://vllm:8000], podDisruptionBudget: {enabled: false}}
networkPolicy: {enabled: false}`,
		kinds: map[string]int{"Service": 2, "StatefulSet": 1, "Deployment": 1},
	},
}

// runHelm runs helm with the chart.
func runHelm(t *testing.T, values string, args ...string) (out string, err error) {
	t.Helper()

	program, err := exec.LookPath("helm")
	if err != nil {
		t.Skip("needs helm: go install helm.sh/helm/v4/cmd/helm@v4.3.2")
	}

	dir := t.TempDir()
	file := filepath.Join(dir, "values.yaml")
	must(t, os.WriteFile(file, []byte("image: {repository: registry.example/promptmill}\n"+values), 0o644))
	cmd := exec.Command(program, append(args, "../helm", "--values", file)...)
	cmd.Env = append(os.Environ(), "HELM_CACHE_HOME="+dir, "HELM_CONFIG_HOME="+dir, "HELM_DATA_HOME="+dir)
	text, err := cmd.CombinedOutput()

	return string(text), err
}

// renderChart returns the manifests of a set of values.
func renderChart(t *testing.T, values string) string {
	t.Helper()

	out, err := runHelm(t, values, "template", "pm", "--namespace", "batch")
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}

	return out
}

// manifest is an object of Kubernetes, as far as tests read it.
type manifest struct {
	Kind     string
	Metadata struct {
		Name   string
		Labels map[string]string
	}
	Spec struct {
		Template     struct{ Spec podSpec }
		Replicas     *int
		Endpoints    []monitoredPort `yaml:"endpoints"`
		PodEndpoints []monitoredPort `yaml:"podMetricsEndpoints"`
		Triggers     []struct {
			MetricType string `yaml:"metricType"`
			Metadata   map[string]string
		}
	}
}

// monitoredPort is a port that Prometheus's operator scrapes.
type monitoredPort struct {
	Port        string
	Relabelings []struct {
		Target      string `yaml:"targetLabel"`
		Replacement string
	}
}

type podSpec struct {
	Grace          int `yaml:"terminationGracePeriodSeconds"`
	InitContainers []container
	Containers     []container
	Token          *bool `yaml:"automountServiceAccountToken"`
	Security       struct {
		NonRoot bool `yaml:"runAsNonRoot"`
		User    int  `yaml:"runAsUser"`
	} `yaml:"securityContext"`
}

type container struct {
	Args     []string
	Security struct {
		ReadOnly bool  `yaml:"readOnlyRootFilesystem"`
		Escalate *bool `yaml:"allowPrivilegeEscalation"`
		NonRoot  bool  `yaml:"runAsNonRoot"`
	} `yaml:"securityContext"`
}

// parseManifests returns the objects by their kinds.
func parseManifests(t *testing.T, text string) map[string][]manifest {
	t.Helper()

	found := map[string][]manifest{}
	for d := yaml.NewDecoder(strings.NewReader(text)); ; {
		var m manifest
		err := d.Decode(&m)
		if errors.Is(err, io.EOF) {
			return found
		}
		must(t, err)
		if m.Kind != "" {
			found[m.Kind] = append(found[m.Kind], m)
		}
	}
}

// The chart has no faults that helm sees, and makes the objects that its values ask for. Each container of ours runs as
// a user without rights on a file system that it cannot write.
func TestHelmChart(t *testing.T) {
	t.Parallel()

	for name, tt := range helmCases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			if out, err := runHelm(t, tt.values, "lint", "--strict"); err != nil {
				t.Errorf("%v: %s", err, out)
			}

			found := parseManifests(t, renderChart(t, tt.values))
			for kind, list := range found {
				if len(list) != tt.kinds[kind] {
					t.Errorf("%d objects of kind %s, want %d", len(list), kind, tt.kinds[kind])
				}
			}
			if len(found) != len(tt.kinds) {
				t.Errorf("the kinds are %v, want %v", slices.Sorted(maps.Keys(found)),
					slices.Sorted(maps.Keys(tt.kinds)))
			}

			for _, m := range slices.Concat(found["StatefulSet"], found["Deployment"]) {
				pod := m.Spec.Template.Spec
				for _, c := range pod.Containers {
					s := c.Security
					if !s.ReadOnly || s.Escalate == nil || *s.Escalate || !s.NonRoot && !pod.Security.NonRoot ||
						pod.Token == nil || *pod.Token {
						t.Errorf("%s: %+v of %+v", m.Kind, s, pod)
					}
				}
			}
		})
	}
}

// Prometheus's operator scrapes heads and workers with the jobs by which the alert rules and the dashboard know them.
func TestHelmJobs(t *testing.T) {
	t.Parallel()

	found := parseManifests(t, renderChart(t, helmCases["sidecar"].values))
	for kind, job := range map[string]string{"ServiceMonitor": "promptmill", "PodMonitor": "promptmill-workers"} {
		if len(found[kind]) != 1 {
			t.Fatalf("%d objects of kind %s, want 1", len(found[kind]), kind)
		}

		spec := found[kind][0].Spec
		ports := slices.Concat(spec.Endpoints, spec.PodEndpoints)
		if len(ports) != 1 || ports[0].Port != "metrics" || len(ports[0].Relabelings) != 1 ||
			ports[0].Relabelings[0].Target != "job" || ports[0].Relabelings[0].Replacement != job {
			t.Errorf("%s scrapes %+v, want the port metrics as the job %s", kind, ports, job)
		}

		if !strings.Contains(readGrafana(t, "README.md"), "job_name: "+job+" ") {
			t.Errorf("the job %s is not that of deploy/grafana", job)
		}
	}
}

// A pod of a worker has its grace and half a minute more, and KEDA, not the chart, has the number of replicas.
func TestHelmWorkers(t *testing.T) {
	t.Parallel()

	found := parseManifests(t, renderChart(t, helmCases["sidecar"].values))
	worker := found["Deployment"][0]
	if grace := worker.Spec.Template.Spec.Grace; grace != 330 || worker.Spec.Replicas != nil {
		t.Errorf("%d s, replicas %v; want 330 s, and none", grace, worker.Spec.Replicas)
	}
	if args := worker.Spec.Template.Spec.Containers[0].Args; !slices.Contains(args, "--grace=300s") {
		t.Errorf("the worker has %q", args)
	}

	trigger := found["ScaledObject"][0].Spec.Triggers[0]
	const want = "http://pm-promptmill-head-http.batch.svc:9464/scale?model=Qwen%2FQwen3-8B%26x&within=8h&max=20"
	if got := trigger.Metadata["url"]; got != want || trigger.MetricType != "AverageValue" {
		t.Errorf("KEDA asks %s for %s, want %s", got, trigger.MetricType, want)
	}
}

// The longest name that helm accepts leaves room for what Kubernetes appends to it, and a long tag is cut for its
// label.
func TestHelmNames(t *testing.T) {
	t.Parallel()

	out, err := runHelm(t, helmCases["elsewhere"].values, "template", strings.Repeat("r", 53), "--set",
		"image.tag="+strings.Repeat("t", 62)+"-"+strings.Repeat("t", 65))
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}

	const longest = 63 // of a label, and of the name of a Service
	for _, m := range slices.Concat(parseManifests(t, out)["StatefulSet"], parseManifests(t, out)["Service"]) {
		most := longest
		if m.Kind == "StatefulSet" {
			most -= len("-") + len("4294967295") // the label controller-revision-hash of its pods
		}
		if len(m.Metadata.Name) > most {
			t.Errorf("%s %s has a name of %d bytes, want %d at most", m.Kind, m.Metadata.Name, len(m.Metadata.Name), most)
		}
		if got := m.Metadata.Labels["app.kubernetes.io/version"]; got != strings.Repeat("t", 62) {
			t.Errorf("%s has the version %q", m.Kind, got)
		}
	}
}

// Values that cannot work are refused with a sentence.
func TestHelmRefuses(t *testing.T) {
	t.Parallel()

	for values, want := range map[string]string{
		"": "workers need a model server: give workers.urls, or workers.model.enabled",
		"workers: {urls: [http://a], model: {enabled: true, image: b}}": "workers.urls and workers.model.enabled: give one",
		"workers: {model: {enabled: true}}":                             "workers.model.image is required",
		"workers: {urls: [http://a]}\nhead: {api: {enabled: true}}":     "head.api.keysSecret is required",
		"workers: {urls: [a]}":                                          "does not match pattern",
		"workers: {url: [http://a]}":                                    "'url' not allowed",
		"workers: {urls: [http://a], graceSeconds: 2m}":                 "got string, want integer",
		"workers: {urls: [http://a]}\nhead: {scaleWithin: 8}":           "got number, want string",
		"workers: {urls: [http://a]}\nhead: {scaleWithin: 8h1d}":        "does not match pattern",

		"workers: {urls: [http://a], autoscaling: {enabled: true, min: 5}}": "min is 5 and max is 4",
		"workers: {urls: [http://a]}\nimage: {repository: ''}":              "image.repository is required",
	} {
		if out, err := runHelm(t, values, "template", "pm"); err == nil || !strings.Contains(out, want) {
			t.Errorf("%s: %v, want %s:\n%s", values, err, want, out)
		}
	}
}

// kubernetesAPIs are the documents of three releases that the manifests are held against.
var kubernetesAPIs = []struct{ module, version, file string }{
	{"k8s.io/kubernetes", "v1.31.14", "api/openapi-spec/swagger.json"},
	{"k8s.io/kubernetes", "v1.34.4", "api/openapi-spec/swagger.json"},
	{"k8s.io/kubernetes", "v1.37.2", "api/openapi-spec/swagger.json"},
}

// customResources are the documents of the kinds of KEDA and of Prometheus's operator.
var customResources = []struct{ module, version, file string }{
	{"github.com/kedacore/keda/v2", "v2.21.0", "config/crd/bases/keda.sh_scaledobjects.yaml"},
	{
		"github.com/prometheus-operator/prometheus-operator", "v0.85.0",
		"example/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml",
	},
	{
		"github.com/prometheus-operator/prometheus-operator", "v0.85.0",
		"example/prometheus-operator-crd/monitoring.coreos.com_podmonitors.yaml",
	},
}

// The manifests fit the API of three releases of Kubernetes, and those of KEDA and of Prometheus's operator, in all
// fields. A cluster to install them in is nowhere here: what a scheduler, a kubelet and a network do with them is not
// tested.
func TestHelmManifests(t *testing.T) {
	t.Parallel()

	if testing.Short() {
		t.Skip("fetches modules of Kubernetes once")
	}
	program, err := exec.LookPath("kubeconform")
	if err != nil {
		t.Skip("needs kubeconform: go install github.com/yannh/kubeconform/cmd/kubeconform@v0.8.0")
	}

	var all strings.Builder
	objects := 0
	for _, tt := range helmCases {
		all.WriteString(renderChart(t, tt.values))
		for _, n := range tt.kinds {
			objects += n
		}
	}

	// Fields that nobody knows: in the two pods, in one object of KEDA and in two of Prometheus's operator.
	wrong := strings.NewReplacer("automountServiceAccountToken:", "automountServiceToken:", "pollingInterval:", "polling:",
		"relabelings:", "relabels:").Replace(renderChart(t, helmCases["sidecar"].values))
	const wrongObjects = 5

	for _, doc := range kubernetesAPIs {
		t.Run(doc.version, func(t *testing.T) {
			schemas := t.TempDir()
			writeSchemas(t, schemas, readModuleFile(t, doc.module, doc.version, doc.file))
			for _, custom := range customResources {
				writeCustomSchema(t, schemas, readModuleFile(t, custom.module, custom.version, custom.file))
			}

			check := func(text, want string) {
				cmd := exec.Command(program, "-strict", "-summary", "-schema-location",
					filepath.Join(schemas, "{{.ResourceKind}}{{.KindSuffix}}.json"))
				cmd.Stdin = strings.NewReader(text)
				out, err := cmd.CombinedOutput()
				if !strings.Contains(string(out), want) {
					t.Errorf("%v, want %s: %s", err, want, out)
				}
			}
			check(all.String(), fmt.Sprintf("Valid: %d, Invalid: 0, Errors: 0, Skipped: 0", objects))
			check(wrong, fmt.Sprintf("Invalid: %d, Errors: 0, Skipped: 0", wrongObjects))
		})
	}
}

// readModuleFile returns a file of a Go module. It is kept in the user's cache folder.
func readModuleFile(t *testing.T, module, version, file string) []byte {
	t.Helper()

	cache, err := os.UserCacheDir()
	must(t, err)
	kept := filepath.Join(cache, "promptmill-test", "modules", module+"@"+version, file)
	if text, err := os.ReadFile(kept); err == nil {
		return text
	}

	dir := t.TempDir()
	fetch := exec.Command("go", "mod", "download", "-json", module+"@"+version)
	fetch.Dir = dir
	fetch.Env = append(os.Environ(), "GOMODCACHE="+dir, "GOFLAGS=-modcacherw", "GOWORK=off")
	out, err := fetch.Output()
	if err != nil {
		t.Skipf("needs the Go module proxy: go mod download %s@%s: %v", module, version, err)
	}
	var found struct{ Zip string }
	must(t, json.Unmarshal(out, &found))

	archive, err := zip.OpenReader(found.Zip)
	must(t, err)
	defer archive.Close()
	f, err := archive.Open(module + "@" + version + "/" + file)
	must(t, err)
	defer f.Close()
	text, err := io.ReadAll(f)
	must(t, err)

	must(t, os.MkdirAll(filepath.Dir(kept), 0o755))
	must(t, os.WriteFile(kept+".new", text, 0o644))
	must(t, os.Rename(kept+".new", kept))

	return text
}

// writeSchemas writes a JSON Schema for each kind of an OpenAPI document of Kubernetes, as kubeconform reads them. They
// refuse fields that the document does not have.
func writeSchemas(t *testing.T, dir string, document []byte) {
	t.Helper()

	document = bytes.ReplaceAll(document, []byte(`"#/definitions/`), []byte(`"definitions.json#/definitions/`))
	var doc struct {
		Definitions map[string]map[string]any `json:"definitions"`
	}
	must(t, json.Unmarshal(document, &doc))

	for name, d := range doc.Definitions {
		switch {
		case strings.HasSuffix(name, "IntOrString"), strings.HasSuffix(name, "api.resource.Quantity"):
			doc.Definitions[name] = map[string]any{"type": []string{"string", "number"}}
		case d["properties"] != nil:
			d["additionalProperties"] = false
		}

		kinds, _ := d["x-kubernetes-group-version-kind"].([]any)
		for _, k := range kinds {
			gvk := k.(map[string]any)
			group, _, _ := strings.Cut(gvk["group"].(string), ".")
			parts := []string{gvk["kind"].(string), group, gvk["version"].(string)}
			parts = slices.DeleteFunc(parts, func(s string) bool { return s == "" })
			path := filepath.Join(dir, strings.ToLower(strings.Join(parts, "-"))+".json")
			must(t, os.WriteFile(path, fmt.Appendf(nil, `{"$ref": "definitions.json#/definitions/%s"}`, name), 0o644))
		}
	}

	text, err := json.Marshal(doc)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "definitions.json"), text, 0o644))
}

// writeCustomSchema writes a JSON Schema for each version of a custom resource, as kubeconform reads them. They refuse
// fields that the document does not have.
func writeCustomSchema(t *testing.T, dir string, document []byte) {
	t.Helper()

	var doc struct {
		Spec struct {
			Group    string
			Names    struct{ Kind string }
			Versions []struct {
				Name   string
				Schema struct {
					OpenAPI map[string]any `yaml:"openAPIV3Schema"`
				}
			}
		}
	}
	must(t, yaml.Unmarshal(document, &doc))

	for _, v := range doc.Spec.Versions {
		closeObjects(v.Schema.OpenAPI)
		text, err := json.Marshal(v.Schema.OpenAPI)
		must(t, err)

		group, _, _ := strings.Cut(doc.Spec.Group, ".")
		name := strings.ToLower(doc.Spec.Names.Kind + "-" + group + "-" + v.Name + ".json")
		must(t, os.WriteFile(filepath.Join(dir, name), text, 0o644))
	}
}

// closeObjects makes a schema and those in it refuse fields that they do not name.
func closeObjects(schema map[string]any) {
	if schema["properties"] != nil && schema["x-kubernetes-preserve-unknown-fields"] != true {
		schema["additionalProperties"] = false
	}
	for _, field := range schema {
		if inner, ok := field.(map[string]any); ok {
			closeObjects(inner)
		}
	}
}

// The head and a worker start with the arguments of the chart and with its Secrets, as kubelet mounts them: the join
// string comes from the head that runs, or with its identity from one that ran elsewhere before.
func TestHelmArguments(t *testing.T) {
	t.Parallel()

	for name, beforehand := range map[string]bool{"from the head": false, "made beforehand": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testHelmArguments(t, beforehand)
		})
	}
}

func testHelmArguments(t *testing.T, beforehand bool) {
	ports := freePorts(t, 3)
	address := fmt.Sprintf("127.0.0.1:%d", ports[0])
	c := newCommand(t)
	m := newModel(t, sim.Config{})
	found := parseManifests(t, renderChart(t, "head: {identitySecret: identity, advertise: '"+address+"'}\n"+
		"workers: {urls: ['"+m.url+"'], autoscaling: {enabled: true, model: Qwen/Qwen3-8B, within: 1d12h}}"))

	volume, secrets := filepath.Join(c.dir, "volume"), filepath.Join(c.dir, "secrets")
	must(t, os.MkdirAll(volume, 0o700))
	must(t, os.MkdirAll(filepath.Join(secrets, "..data"), 0o755))
	must(t, os.Symlink(filepath.Join("..data", "join"), filepath.Join(secrets, "join")))

	start := func(kind, state string, port int) (*exec.Cmd, *lockedBuffer) {
		place := strings.NewReplacer(
			"/var/lib/promptmill", state,
			"/work/answers", filepath.Join(c.dir, "answers"),
			"/run/secrets/promptmill", secrets,
			"0.0.0.0:4333", address,
			"0.0.0.0:9464", fmt.Sprintf("127.0.0.1:%d", port),
		)
		var args []string
		for _, a := range found[kind][0].Spec.Template.Spec.Containers[0].Args {
			args = append(args, place.Replace(a))
		}

		cmd, out := c.start(args...)
		if kind == "StatefulSet" || !beforehand {
			awaitReady(t, port)
		}

		return cmd, out
	}
	storeJoin := func(state string) {
		join := c.must("join", "worker", "--state", state, "--advertise", address)
		must(t, os.WriteFile(filepath.Join(secrets, "..data", "join"), []byte(join), 0o440))
	}

	var worker *exec.Cmd
	var said, head *lockedBuffer
	if beforehand {
		elsewhere := filepath.Join(c.dir, "elsewhere")
		serving, out := c.start("serve", "--state", elsewhere, "--listen", "127.0.0.1:0")
		awaitText(t, out, "serving ")
		storeJoin(elsewhere)
		must(t, serving.Process.Signal(os.Interrupt))
		waitExit(t, serving, out, patience)

		identity, err := os.ReadFile(filepath.Join(elsewhere, "identity.pem"))
		must(t, err)
		must(t, os.WriteFile(filepath.Join(volume, "identity.pem"), identity, 0o440))
		worker, said = start("Deployment", filepath.Join(c.dir, "worker"), ports[2]) // it waits for the head
		_, head = start("StatefulSet", volume, ports[1])
	} else {
		_, head = start("StatefulSet", volume, ports[1])
		storeJoin(volume)
		worker, said = start("Deployment", filepath.Join(c.dir, "worker"), ports[2])
	}

	c.must("submit", c.input("in.jsonl", 50), "--model", "sim", "--run", "r", "--state", volume, "--wait")
	awaitReady(t, ports[2])
	askAsKEDA(t, found["ScaledObject"][0], ports[1])
	if n := m.sim.Succeeded(); n != 50 {
		t.Errorf("the model server answered %d requests, want 50", n)
	}
	if strings.Contains(said.String(), "warning") {
		t.Errorf("the worker warns: %s", said)
	}

	if strings.Contains(head.String(), "pm1_") {
		t.Errorf("the log of the head has a join string:\n%s", head)
	}

	must(t, worker.Process.Signal(os.Interrupt))
	if code := waitExit(t, worker, said, patience); code != exit.CodeOK {
		t.Errorf("exit code %d:\n%s", code, said)
	}
}

// askAsKEDA asks the head for the number of workers as the trigger of the chart has KEDA ask it. KEDA takes a number at
// valueLocation of an answer with status 200 (pkg/scalers/metrics_api_scaler.go in its version 2.21).
func askAsKEDA(t *testing.T, scaled manifest, port int) {
	t.Helper()

	trigger := scaled.Spec.Triggers[0].Metadata
	at, err := url.Parse(trigger["url"])
	must(t, err)
	at.Host = fmt.Sprintf("127.0.0.1:%d", port)

	code, text := call(t, http.DefaultClient, "GET", at.String(), "")
	var answer map[string]any
	must(t, json.Unmarshal([]byte(text), &answer))
	if value, isNumber := answer[trigger["valueLocation"]].(float64); code != http.StatusOK || !isNumber || value != 0 ||
		answer["model"] != "Qwen/Qwen3-8B" {
		t.Errorf("%s: %d %s", at, code, text)
	}
}

// awaitReady waits until the probe of the chart finds a process ready.
func awaitReady(t *testing.T, port int) {
	t.Helper()

	address := fmt.Sprintf("http://127.0.0.1:%d", port)
	poll(t, pollTime, "the probe", func() bool {
		res, err := http.Get(address + "/readyz")
		if err != nil {
			return false
		}
		res.Body.Close()

		return res.StatusCode == http.StatusOK
	})

	if code, text := call(t, http.DefaultClient, "GET", address+"/healthz", ""); code != http.StatusOK {
		t.Errorf("/healthz: %d %s", code, text)
	}
}
