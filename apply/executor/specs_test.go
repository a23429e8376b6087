package executor

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
	corev1 "k8s.io/api/core/v1"
	defaults "k8s.io/kubernetes/pkg/apis/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/object"
	"github.com/fairlead-dev/fairlead/runtimes"
	"github.com/fairlead-dev/fairlead/runtimes/fake"
	"github.com/fairlead-dev/fairlead/runtimes/networking"
)

var update = flag.Bool("update", false, "rewrite golden files")

// paths is a Volumes that says where things would be and keeps what is written.
type paths struct {
	Volumes
	files map[string]string
}

func (p *paths) Mounts(_ context.Context, pod *plan.Pod, _ string, c *corev1.Container, expand func(string) (string, error)) ([]runtimes.Mount, error) {
	var out []runtimes.Mount
	for _, m := range c.VolumeMounts {
		sub := m.SubPath
		if m.SubPathExpr != "" {
			var err error
			if sub, err = expand(m.SubPathExpr); err != nil {
				return nil, err
			}
		}
		out = append(out, runtimes.Mount{Source: filepath.Join("/volumes", m.Name, sub), Target: m.MountPath, ReadOnly: m.ReadOnly})
	}
	return out, nil
}

func (p *paths) WriteFile(_, name string, data []byte) (string, error) {
	p.files[name] = string(data)
	return "/files/" + name, nil
}

func (p *paths) TerminationLog(_, container string, attempt int) (string, error) {
	return fmt.Sprintf("/termination/%s/%d", container, attempt), nil
}

// specNode is a node that only makes specs.
func specNode(t *testing.T) (*Node, *paths) {
	t.Helper()
	engine := fake.New()
	t.Cleanup(func() { engine.Close() })
	v := &paths{files: map[string]string{}}
	n := &Node{serving: newServing("node-1", serviceFiles{}, nil),
		opt: Options{
			ID: "node-1", Engine: engine, Volumes: v, Network: fake.NewNetwork(engine), HostIPs: []string{"192.0.2.10", "2001:db8::10"},
			DNS:     networking.DNS{Host: []byte("nameserver 192.0.2.53\n"), ClusterDomain: "cluster.local"},
			OnEvent: func(Event) {}, SeccompDir: t.TempDir(),
		},
		info: runtimes.EngineInfo{CPUs: 4, MemoryBytes: 8 << 30, AppArmor: true},
	}
	return n, v
}

// podOf reads a Pod manifest and applies Kubernetes' defaults.
func podOf(t *testing.T, manifest []byte) *plan.Pod {
	t.Helper()
	var p corev1.Pod
	if err := yaml.UnmarshalStrict(manifest, &p); err != nil {
		t.Fatal(err)
	}
	defaults.SetObjectDefaults_Pod(&p)
	if p.Namespace == "" {
		p.Namespace = "default"
	}
	key := plan.PodKey{Namespace: p.Namespace, Name: p.Name}
	return &plan.Pod{
		PodKey: key, Application: "shop", Owner: key.Ref(), Template: "t1",
		Labels: p.Labels, Annotations: p.Annotations, Spec: &p.Spec, Index: -1,
	}
}

// TestSpecs compares what the engine is given for a pod with golden files: pod.yaml goes in, with
// image.yaml (what the image says), configs.yaml (ConfigMaps and Secrets), host.yaml (settings of the
// node) and seccomp/ (its profiles); a file for each container comes out, or why there is none.
func TestSpecs(t *testing.T) {
	names, err := filepath.Glob("testdata/specs/*.txtar")
	if err != nil || len(names) == 0 {
		t.Fatal("no golden files", err)
	}
	for _, name := range names {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(name)
			if err != nil {
				t.Fatal(err)
			}
			input := slices.DeleteFunc(slices.Clone(archive.Files), func(f txtar.File) bool { return strings.HasPrefix(f.Name, "out/") })
			got := &txtar.Archive{Comment: archive.Comment, Files: append(input, specsOf(t, input)...)}
			if *update {
				if err := os.WriteFile(name, txtar.Format(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if d := cmp.Diff(string(txtar.Format(archive)), string(txtar.Format(got))); d != "" {
				t.Errorf("golden file differs (-golden +now):\n%s", d)
			}
		})
	}
}

// hostSettings are the settings of the node that a golden file can change.
type hostSettings struct {
	NoNetwork  bool     `json:"noNetwork"`
	DNSServers []string `json:"dnsServers"`
	ResolvConf string   `json:"resolvConf"`
	// ShowFiles shows the files that the pod mounts.
	ShowFiles []string `json:"showFiles"`
}

func specsOf(t *testing.T, input []txtar.File) []txtar.File {
	t.Helper()
	n, files := specNode(t)
	img := runtimes.Image{ID: "sha256:1234", Entrypoint: []string{"/app"}}
	var (
		pod     *plan.Pod
		host    hostSettings
		configs []struct {
			Kind, Name string
			Data       map[string]string
		}
	)
	read := func(f txtar.File, into any) {
		if err := yaml.UnmarshalStrict(f.Data, into); err != nil {
			t.Fatalf("%s: %v", f.Name, err)
		}
	}
	for _, f := range input {
		switch {
		case f.Name == "pod.yaml":
			pod = podOf(t, f.Data)
		case f.Name == "image.yaml":
			read(f, &img)
		case f.Name == "configs.yaml":
			read(f, &configs)
		case f.Name == "host.yaml":
			read(f, &host)
		case strings.HasPrefix(f.Name, "seccomp/"):
			if err := os.WriteFile(filepath.Join(n.opt.SeccompDir, filepath.Base(f.Name)), f.Data, 0o600); err != nil {
				t.Fatal(err)
			}
		default:
			t.Fatalf("unknown file %s", f.Name)
		}
	}
	for _, c := range configs {
		cfg := plan.Config{Ref: object.Ref{Kind: c.Kind, Namespace: pod.Namespace, Name: c.Name}, Data: map[string][]byte{}}
		for k, v := range c.Data {
			cfg.Data[k] = []byte(v)
		}
		pod.Configs = append(pod.Configs, cfg)
	}
	if host.NoNetwork {
		n.opt.Network = nil
	}
	for _, s := range host.DNSServers {
		n.opt.DNS.Servers = append(n.opt.DNS.Servers, netip.MustParseAddr(s))
	}
	if host.ResolvConf != "" {
		n.opt.DNS.Host = []byte(host.ResolvConf)
	}

	ip := "10.99.0.2"
	if pod.Spec.HostNetwork {
		ip = ""
	}
	show := func(name string, spec runtimes.ContainerSpec, err error) txtar.File {
		if err != nil {
			text := strings.ReplaceAll(err.Error(), n.opt.SeccompDir, "$SECCOMP") + "\n"
			return txtar.File{Name: "out/" + name + ".error", Data: []byte(text)}
		}
		return txtar.File{Name: "out/" + name + ".yaml", Data: readable(t, spec)}
	}
	spec, err := n.sandboxSpec(t.Context(), pod, "uid-1", 0, ip)
	out := []txtar.File{show("sandbox", spec, err)}
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			spec, err := n.containerSpec(t.Context(), pod, "uid-1", &list[i], 0, img, "sandbox-id", ip)
			out = append(out, show(list[i].Name, spec, err))
		}
	}
	for _, name := range host.ShowFiles {
		out = append(out, txtar.File{Name: "out/etc/" + name, Data: []byte(files.files[name])})
	}
	return out
}

// readable writes what is set in a spec as YAML. What is the same in every golden file is left out.
func readable(t *testing.T, spec runtimes.ContainerSpec) []byte {
	t.Helper()
	if spec.Spec != "" {
		if _, err := decodeRecord(spec.Spec); err != nil {
			t.Error(err)
		}
	}
	spec.Identity = runtimes.Identity{Container: spec.Container, IP: spec.IP}
	data, err := json.Marshal(spec)
	if err != nil {
		t.Fatal(err)
	}
	var tree map[string]any
	if err := json.Unmarshal(data, &tree); err != nil {
		t.Fatal(err)
	}
	data, err = yaml.Marshal(withoutZero(tree))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func withoutZero(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			if e = withoutZero(e); e == nil {
				delete(v, k)
			} else {
				v[k] = e
			}
		}
		if len(v) == 0 {
			return nil
		}
	case []any:
		for i := range v {
			if m, ok := v[i].(map[string]any); ok {
				v[i] = withoutZero(m)
			}
		}
		if len(v) == 0 {
			return nil
		}
	case string:
		if v == "" {
			return nil
		}
	case float64:
		if v == 0 {
			return nil
		}
	case bool:
		if !v {
			return nil
		}
	}
	return v
}
