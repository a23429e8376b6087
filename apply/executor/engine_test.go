package executor

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/object"
	"github.com/fairlead-dev/fairlead/runtimes"
	"github.com/fairlead-dev/fairlead/runtimes/docker"
	"github.com/fairlead-dev/fairlead/runtimes/networking"
	"github.com/fairlead-dev/fairlead/runtimes/runtimetest"
	"github.com/fairlead-dev/fairlead/runtimes/volumes"
)

// real is a node on the real engine, with an installation, a network and directories of its own.
type real struct {
	t       testing.TB
	engine  *docker.Engine
	network *networking.Network
	options Options
	node    *Node
	image   string
	events  chan string
}

func onEngine(t testing.TB) *real {
	t.Helper()
	r := &real{t: t, image: runtimetest.Image(t), events: make(chan string, 10000)}
	name := runtimetest.Name(t)
	secret := make([]byte, 32)
	rand.Read(secret)
	var err error
	if r.engine, err = docker.New(docker.Options{Key: secret, Installation: name}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.engine.Close(); err != nil {
			t.Error(err)
		}
	})
	dir, err := os.MkdirTemp("", "fairlead-executor-")
	if err != nil {
		t.Fatal(err)
	}
	shm, err := os.MkdirTemp("/dev/shm", "fairlead-executor-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, d := range []string{dir, shm} {
			if err := os.RemoveAll(d); err != nil {
				t.Error(err)
			}
		}
	})
	vols, err := volumes.New(volumes.Options{Dir: dir + "/volumes", TmpfsDir: shm})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := vols.Strays(context.Background(), nil); err != nil {
			t.Error(err)
		}
	})
	// A subnet for tests (RFC 2544), one of 256 by chance: tests run side by side on one machine.
	r.network, err = networking.New(r.engine, networking.Options{
		Bridge: name, CIDR: netip.PrefixFrom(netip.AddrFrom4([4]byte{198, 19, secret[0], 0}), 24),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.network.Destroy(context.Background()); err != nil {
			t.Error(err)
		}
	})
	runtimetest.RemoveAll(t, r.engine)
	r.options = Options{
		ID: "a", Engine: r.engine, Network: r.network, Volumes: vols, StateDir: dir, HostIPs: []string{"127.0.0.1"},
		OnEvent: func(e Event) {
			select {
			case r.events <- fmt.Sprintf("%s/%s %s: %s", e.Pod.Name, e.Container, e.Reason, e.Message):
			default:
			}
		},
		OnTrouble: func(err error) { t.Log("trouble: ", err) },
	}
	r.open()
	t.Cleanup(r.close)
	return r
}

func (r *real) open() {
	r.t.Helper()
	n, err := New(r.options)
	if err != nil {
		r.t.Fatal(err)
	}
	r.node = n
}

func (r *real) close() {
	if r.node != nil {
		if err := r.node.Close(); err != nil {
			r.t.Error(err)
		}
		r.node = nil
	}
}

func (r *real) must(args plan.Args) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 2*time.Minute)
	defer cancel()
	if err := r.node.Do(ctx, plan.Step{ID: 1, Args: args}); err != nil {
		r.t.Fatalf("%T: %v\n%s", args, err, r.story())
	}
}

func (r *real) story() string {
	var b strings.Builder
	for {
		select {
		case s := <-r.events:
			b.WriteString(s + "\n")
		default:
			return b.String()
		}
	}
}

func (r *real) observe(name string) plan.ObservedPod {
	r.t.Helper()
	s, err := r.node.Observe(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	for _, p := range s.Pods {
		if p.Name == name {
			return p
		}
	}
	r.t.Fatalf("no pod %s\n%s", name, r.story())
	return plan.ObservedPod{}
}

// until waits for the node to show a pod as it is wanted.
func (r *real) until(name, what string, ok func(plan.ObservedPod) bool) plan.ObservedPod {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), time.Minute)
	defer cancel()
	r.observe(name)
	p := r.node.find(key(name))
	if p == nil {
		r.t.Fatalf("no pod %s", name)
	}
	err := p.until(ctx, func(v *view) (bool, error) { return ok(v.ObservedPod), nil })
	if err != nil {
		r.t.Fatalf("pod %s: never %s: %v\n%s\n%s", name, what, err, line(r.observe(name)), r.story())
	}
	return r.observe(name)
}

func (r *real) logs(id string) string {
	r.t.Helper()
	var out bytes.Buffer
	if err := r.engine.Logs(r.t.Context(), id, runtimes.LogOptions{Tail: -1}, &out, &out); err != nil {
		r.t.Fatal(err)
	}
	return out.String()
}

// pod is a pod with one container of the test image that runs a program.
func (r *real) pod(name string, program []string, change ...func(*corev1.PodSpec)) *plan.Pod {
	grace := int64(5)
	return onePod(name, append([]func(*corev1.PodSpec){
		func(s *corev1.PodSpec) { s.TerminationGracePeriodSeconds = &grace },
		web(func(c *corev1.Container) { c.Image, c.Command = r.image, program }),
	}, change...)...)
}

func TestEngineLife(t *testing.T) {
	r := onEngine(t)
	serve := runtimetest.Program("http", ":8080")
	begin := time.Now()
	r.must(plan.CreatePod{Pod: r.pod("p", serve, web(func(c *corev1.Container) {
		c.ReadinessProbe = &corev1.Probe{PeriodSeconds: 1, ProbeHandler: corev1.ProbeHandler{
			HTTPGet: &corev1.HTTPGetAction{Path: "/status/200", Port: intstr.FromInt32(8080)}}}
	}))})
	r.must(plan.WaitReady{Pod: key("p")})
	t.Logf("ready after %v", time.Since(begin))
	p := r.observe("p")
	resp, err := http.Get("http://" + p.IP + ":8080/")
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	if strings.TrimSpace(string(body)) != "p" {
		t.Errorf("its page says %q", body)
	}

	// Its interface has no IPv6, by which it would reach others past network policies.
	c, err := r.engine.Inspect(t.Context(), p.Containers[0].ID)
	if err != nil {
		t.Fatal(err)
	}
	addresses, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/if_inet6", c.PID))
	if err != nil && !errors.Is(err, fs.ErrNotExist) || bytes.Contains(addresses, []byte("eth0")) {
		t.Errorf("the pod has IPv6 addresses (%v):\n%s", err, addresses)
	}

	// Another node takes over without touching anything.
	r.close()
	r.open()
	after := r.until("p", "adopted", func(p plan.ObservedPod) bool { return p.Ready })
	if after.Containers[0].ID != p.Containers[0].ID || after.Containers[0].Restarts != 0 || !after.ReadySince.Equal(p.ReadySince) {
		t.Errorf("after a restart of the daemon:\n%+v\nbefore\n%+v", after, p)
	}

	// What somebody removes runs again.
	begin = time.Now()
	if err := r.engine.Remove(t.Context(), p.Containers[0].ID); err != nil {
		t.Fatal(err)
	}
	r.until("p", "running again", func(o plan.ObservedPod) bool { return o.Ready && o.Containers[0].ID != p.Containers[0].ID })
	t.Logf("removed and ready again after %v", time.Since(begin))

	// Limits change while it runs.
	next := r.pod("p", serve, web(func(c *corev1.Container) {
		c.ReadinessProbe = &corev1.Probe{PeriodSeconds: 1, ProbeHandler: corev1.ProbeHandler{
			HTTPGet: &corev1.HTTPGetAction{Path: "/status/200", Port: intstr.FromInt32(8080)}}}
		c.Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("64Mi"), corev1.ResourceCPU: resource.MustParse("500m")}
	}))
	id := r.observe("p").Containers[0].ID
	r.must(plan.UpdatePod{Pod: next})
	seen, err := r.engine.Inspect(t.Context(), id)
	if err != nil || seen.Resources.MemoryBytes != 64<<20 || seen.Resources.CPUMillis != 500 || !seen.Running {
		t.Errorf("after the update: %+v, %v", seen, err)
	}

	// Its sandbox goes: the pod is made anew with the same address.
	all, err := r.engine.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range all {
		if c.Container == runtimes.SandboxContainer {
			if err := r.engine.Remove(t.Context(), c.ID); err != nil {
				t.Fatal(err)
			}
		}
	}
	r.until("p", "made anew", func(o plan.ObservedPod) bool { return o.Ready && o.Containers[0].Restarts == 2 })
	if resp, err := http.Get("http://" + p.IP + ":8080/"); err != nil {
		t.Error(err)
	} else {
		resp.Body.Close()
	}

	begin = time.Now()
	r.must(plan.DeletePod{Pod: key("p"), UID: p.UID})
	t.Logf("deleted after %v", time.Since(begin))
	if all, err := r.engine.List(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("left over: %v, %v", all, err)
	}
}

func TestEngineOrderHooksAndEnds(t *testing.T) {
	r := onEngine(t)
	always := corev1.ContainerRestartPolicyAlways
	shared := corev1.VolumeMount{Name: "v", MountPath: "/v"}
	r.must(plan.CreatePod{Pod: r.pod("order", runtimetest.Program("append", "/v/log", "web", "--", "exists", "/v/hook"), func(s *corev1.PodSpec) {
		s.RestartPolicy = corev1.RestartPolicyOnFailure
		s.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
		s.InitContainers = []corev1.Container{
			{Name: "first", Image: r.image, Command: runtimetest.Program("write", "/v/log", "first"), VolumeMounts: []corev1.VolumeMount{shared}},
			{Name: "side", Image: r.image, Command: runtimetest.Program("append", "/v/log", "side", "--", "wait"), RestartPolicy: &always,
				VolumeMounts: []corev1.VolumeMount{shared},
				Lifecycle:    &corev1.Lifecycle{PostStart: &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: runtimetest.Program("write", "/v/hook", "x")}}}},
			{Name: "last", Image: r.image, Command: runtimetest.Program("cat", "/v/log"), VolumeMounts: []corev1.VolumeMount{shared}},
		}
		s.Containers[0].VolumeMounts = []corev1.VolumeMount{shared}
	})})
	p := r.until("order", "done", func(p plan.ObservedPod) bool { return p.Phase == corev1.PodSucceeded })
	if got := strings.Fields(r.logs(p.Containers[2].ID)); strings.Join(got, " ") != "first side" {
		t.Errorf("order: %v", got)
	}

	r.must(plan.CreatePod{Pod: r.pod("oom", runtimetest.Program("alloc", "200000000"), func(s *corev1.PodSpec) {
		s.RestartPolicy = corev1.RestartPolicyNever
	}, web(func(c *corev1.Container) {
		c.Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("16Mi")}
	}))})
	p = r.until("oom", "killed", func(p plan.ObservedPod) bool {
		return p.Phase == corev1.PodFailed && p.Containers[0].Reason == reasonOOMKilled
	})
	if !p.Containers[0].OOM {
		t.Errorf("out of memory: %+v", p.Containers[0])
	}

	r.must(plan.CreatePod{Pod: r.pod("crash", runtimetest.Program("print", "hello", "--", "write", "/dev/termination-log", "because", "--", "exit", "4"),
		web(func(c *corev1.Container) { c.TerminationMessagePath = "/dev/termination-log" }))})
	p = r.until("crash", "backing off", func(p plan.ObservedPod) bool {
		return p.Reason == reasonCrashLoop && strings.Contains(p.Message, "because")
	})
	if len(p.LogTail) != 1 || p.LogTail[0] != "hello" {
		t.Errorf("crash: %q", p.LogTail)
	}

	r.must(plan.CreatePod{Pod: r.pod("cannot", []string{"/nothing"})})
	r.until("cannot", "backing off", func(p plan.ObservedPod) bool { return p.Reason == reasonCrashLoop })

	yes := true
	r.must(plan.CreatePod{Pod: r.pod("root", runtimetest.Program("forever"), web(func(c *corev1.Container) {
		c.SecurityContext = &corev1.SecurityContext{RunAsNonRoot: &yes}
	}))})
	r.until("root", "refused", func(p plan.ObservedPod) bool { return p.Reason == reasonConfigError })

	for _, name := range []string{"order", "oom", "crash", "cannot", "root"} {
		r.must(plan.DeletePod{Pod: key(name)})
	}
	if all, err := r.engine.List(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("left over: %v, %v", all, err)
	}
}

func TestEngineNamespacesAndConfig(t *testing.T) {
	r := onEngine(t)
	yes := true
	r.must(plan.CreatePod{Pod: r.pod("shared", runtimetest.Program("ps", "--", "forever"), func(s *corev1.PodSpec) {
		s.ShareProcessNamespace = &yes
		s.Containers = append(s.Containers, corev1.Container{Name: "other", Image: r.image, Command: runtimetest.Program("wait")})
	})})
	r.must(plan.WaitReady{Pod: key("shared")})
	out, err := r.engine.Exec(t.Context(), r.observe("shared").Containers[0].ID, runtimetest.Program("ps"), 10000)
	if err != nil || strings.Count(string(out.Output), runtimetest.ProgramPath) < 2 {
		t.Errorf("processes: %s, %v", out.Output, err)
	}

	r.must(plan.CreatePod{Pod: r.pod("host", runtimetest.Program("forever"), func(s *corev1.PodSpec) { s.HostNetwork = true })})
	r.must(plan.WaitReady{Pod: key("host")})
	out, err = r.engine.Exec(t.Context(), r.observe("host").Containers[0].ID, runtimetest.Program("addr"), 10000)
	if err != nil || !strings.Contains(string(out.Output), r.network.Gateway().String()) {
		t.Errorf("on the host's network: %s, %v", out.Output, err)
	}

	ref := object.Ref{Kind: "Secret", Namespace: "ns", Name: "s"}
	withSecret := func(value string) *plan.Pod {
		p := r.pod("secret", runtimetest.Program("forever"), func(s *corev1.PodSpec) {
			s.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "s"}}}}
		}, web(func(c *corev1.Container) { c.VolumeMounts = []corev1.VolumeMount{{Name: "v", MountPath: "/s"}} }))
		p.Configs = []plan.Config{{Ref: ref, Digest: value, Data: map[string][]byte{"key": []byte(value)}}}
		return p
	}
	r.must(plan.CreatePod{Pod: withSecret("one")})
	r.must(plan.WaitReady{Pod: key("secret")})
	r.must(plan.UpdatePod{Pod: withSecret("two")})
	p := r.observe("secret")
	out, err = r.engine.Exec(t.Context(), p.Containers[0].ID, runtimetest.Program("cat", "/s/key"), 100)
	if err != nil || string(out.Output) != "two" || p.Mounted[ref] != "two" || p.Containers[0].Restarts != 0 {
		t.Errorf("secret: %s, %v; %+v", out.Output, err, p)
	}
	for _, name := range []string{"shared", "host", "secret"} {
		r.must(plan.DeletePod{Pod: key(name)})
	}
}

func TestEngineHostPort(t *testing.T) {
	r := onEngine(t)
	r.must(plan.CreatePod{Pod: r.pod("p", runtimetest.Program("http", ":8080"), web(func(c *corev1.Container) {
		c.Ports = []corev1.ContainerPort{{ContainerPort: 8080, HostPort: 28765, HostIP: "127.0.0.1", Protocol: corev1.ProtocolTCP}}
		c.ReadinessProbe = &corev1.Probe{PeriodSeconds: 1, ProbeHandler: corev1.ProbeHandler{
			TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(8080)}}}
		c.Env = []corev1.EnvVar{{Name: "IP", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "status.podIP"}}}}
	}))})
	r.must(plan.WaitReady{Pod: key("p"), Deadline: time.Now().Add(20 * time.Second)})
	for _, url := range []string{"http://127.0.0.1:28765/env/IP", "http://" + r.observe("p").IP + ":8080/env/IP"} {
		resp, err := http.Get(url)
		if err != nil {
			t.Error(err)
			continue
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if strings.TrimSpace(string(body)) != r.observe("p").IP {
			t.Errorf("%s: %q, want the pod's address %s", url, body, r.observe("p").IP)
		}
	}
	r.must(plan.DeletePod{Pod: key("p")})
}
