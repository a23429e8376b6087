package executor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/object"
	"github.com/fairlead-dev/fairlead/runtimes"
	"github.com/fairlead-dev/fairlead/runtimes/fake"
)

// imageBench is a node that only has images.
type imageBench struct {
	*images
	engine *fake.Engine
	pod    *plan.Pod

	mu     sync.Mutex
	events []string
}

func newImageBench(t *testing.T) *imageBench {
	b := &imageBench{engine: fake.New(), pod: &plan.Pod{PodKey: plan.PodKey{Namespace: "default", Name: "web"}, Spec: &corev1.PodSpec{}}}
	n := &Node{pods: map[string]*pod{}, opt: Options{ID: "node-1", Engine: b.engine, OnEvent: func(e Event) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.events = append(b.events, e.Type()+" "+e.Reason+" "+e.Message)
	}}}
	n.ctx, n.cancel = context.WithCancel(t.Context())
	t.Cleanup(func() {
		n.cancel()
		n.wg.Wait()
		b.engine.Close()
	})
	b.images = newImages(n)
	return b
}

func (b *imageBench) get(t *testing.T, image string, policy corev1.PullPolicy) error {
	t.Helper()
	img, err := b.ensure(t.Context(), b.pod, &corev1.Container{Name: "app", Image: image, ImagePullPolicy: policy})
	if err == nil && img.ID == "" {
		t.Errorf("image %s has no id", image)
	}
	return err
}

func (b *imageBench) count(kind fake.CallKind) int {
	return len(slices.DeleteFunc(b.engine.Calls(), func(c fake.Call) bool { return c.Kind != kind }))
}

func reasonOf(err error) string {
	var p *problem
	if errors.As(err, &p) {
		return p.Reason
	}
	if err != nil {
		return "error"
	}
	return ""
}

func TestPullPolicy(t *testing.T) {
	for _, tt := range []struct {
		image   string
		policy  corev1.PullPolicy
		present bool
		pulls   int
		reason  string
	}{
		{"app:1", "", true, 0, ""},
		{"app:1", "", false, 1, ""},
		{"app:latest", "", true, 1, ""},
		{"app", "", true, 1, ""},
		{"registry.example.com:5000/app", "", true, 1, ""},
		{"app@sha256:" + strings.Repeat("a", 64), "", true, 0, ""},
		{"app:latest@sha256:" + strings.Repeat("a", 64), "", true, 0, ""},
		{"app:1", corev1.PullAlways, true, 1, ""},
		{"app", corev1.PullIfNotPresent, true, 0, ""},
		{"app:1", corev1.PullNever, true, 0, ""},
		{"app:1", corev1.PullNever, false, 0, reasonErrImageNeverPull},
		{"App:1", "", false, 0, reasonInvalidImageName},
		{"", "", false, 0, reasonInvalidImageName},
		{"app:1:2", "", false, 0, reasonInvalidImageName},
	} {
		t.Run(fmt.Sprintf("%s %s present %v", tt.image, tt.policy, tt.present), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newImageBench(t)
				if tt.image != "" {
					b.engine.AddImage(tt.image, fake.Image{Present: tt.present})
				}
				err := b.get(t, tt.image, tt.policy)
				if got := reasonOf(err); got != tt.reason || b.count(fake.CallPull) != tt.pulls {
					t.Errorf("%d pulls, reason %q (%v), want %d and %q", b.count(fake.CallPull), got, err, tt.pulls, tt.reason)
				}
			})
		})
	}
}

func TestPullIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newImageBench(t)
		b.engine.AddImage("app:latest", fake.Image{Pull: fake.Pull{Takes: time.Minute}})
		done := make(chan error, 10)
		for range cap(done) {
			go func() { done <- b.get(t, "app", "") }()
		}
		// One that does not wait does not take the pull from the others.
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := b.ensure(ctx, b.pod, &corev1.Container{Image: "app"}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("it waited: %v", err)
		}
		for range cap(done) {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		if n := b.count(fake.CallPull); n != 1 {
			t.Errorf("%d pulls", n)
		}
		// The next pods of the rollout do not pull again, those of later do.
		if err := b.get(t, "app", ""); err != nil || b.count(fake.CallPull) != 1 {
			t.Errorf("%d pulls at once, %v", b.count(fake.CallPull), err)
		}
		b.engine.RemoveImage("app:latest")
		b.forget("app")
		if err := b.get(t, "app", ""); err != nil || b.count(fake.CallPull) != 2 {
			t.Errorf("%d pulls after the image was removed, %v", b.count(fake.CallPull), err)
		}
		time.Sleep(time.Hour)
		if err := b.get(t, "app", ""); err != nil || b.count(fake.CallPull) != 3 {
			t.Errorf("%d pulls an hour later, %v", b.count(fake.CallPull), err)
		}
	})
}

func TestPullBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newImageBench(t)
		began := time.Now()
		var got []string
		for range 8 { // tries and waits until it may try again
			err := b.get(t, "absent:1", "")
			got = append(got, fmt.Sprintf("%v %s", time.Since(began), reasonOf(err)))
			if !errors.Is(err, runtimes.ErrNotFound) {
				t.Errorf("error %v", err)
			}
			err = b.get(t, "absent:1", "")
			var p *problem
			if !errors.As(err, &p) || p.Reason != reasonImagePullBackOff || !strings.HasPrefix(err.Error(), `Back-off pulling image "absent:1": `) {
				t.Fatalf("while it waits: %v", err)
			}
			time.Sleep(time.Until(p.RetryAt))
		}
		want := []string{
			"0s ErrImagePull", "10s ErrImagePull", "30s ErrImagePull", "1m10s ErrImagePull", "2m30s ErrImagePull",
			"5m10s ErrImagePull", "10m10s ErrImagePull", "15m10s ErrImagePull",
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
		if err := b.get(t, "absent:1", ""); reasonOf(err) != reasonErrImagePull {
			t.Errorf("after the wait: %v", err)
		}
		if err := b.get(t, "other:1", ""); reasonOf(err) != reasonErrImagePull {
			t.Errorf("another image has to wait: %v", err)
		}
		// Success ends the back-off, and so does a long time.
		b.engine.AddImage("absent:1", fake.Image{})
		time.Sleep(pullMax)
		if err := b.get(t, "absent:1", ""); err != nil {
			t.Error(err)
		}
		time.Sleep(3 * pullMax)
		b.engine.AddImage("other:1", fake.Image{Pull: fake.Pull{Err: runtimes.ErrDenied}})
		if err := b.get(t, "other:1", ""); !errors.Is(err, runtimes.ErrDenied) {
			t.Error(err)
		}
		var p *problem
		if err := b.get(t, "other:1", ""); !errors.As(err, &p) || time.Until(p.RetryAt) != pullFirst {
			t.Errorf("the back-off did not begin anew: %v", err)
		}
	})
}

// TestPullEngineDown holds that an engine that does not answer is no fault of the image's.
func TestPullEngineDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newImageBench(t)
		b.engine.AddImage("app:1", fake.Image{})
		b.engine.Break(fake.Fault{Kind: fake.CallPull, Nth: 1})
		if err := b.get(t, "app:1", ""); !errors.Is(err, runtimes.ErrUnavailable) || reasonOf(err) != "error" {
			t.Errorf("pull: %v", err)
		}
		b.engine.Down()
		if err := b.get(t, "app:1", ""); !errors.Is(err, runtimes.ErrUnavailable) || reasonOf(err) != "error" {
			t.Errorf("inspect: %v", err)
		}
		b.engine.Up()
		if err := b.get(t, "app:1", ""); err != nil {
			t.Errorf("up again: %v", err)
		}
	})
}

func TestPullStalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newImageBench(t)
		b.engine.AddImage("app:1", fake.Image{})
		b.engine.Break(fake.Fault{Kind: fake.CallPull, Hang: true, Nth: 1})
		began := time.Now()
		err := b.get(t, "app:1", "")
		if reasonOf(err) != reasonErrImagePull || time.Since(began) != pullStall || !strings.Contains(err.Error(), "no progress within 30m0s") {
			t.Errorf("after %v: %v", time.Since(began), err)
		}
		time.Sleep(pullFirst)
		if err := b.get(t, "app:1", ""); err != nil {
			t.Error(err)
		}
	})
}

func TestPullSecrets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newImageBench(t)
		auth := func(user, password string) *runtimes.Auth {
			return &runtimes.Auth{Username: user, Password: password, ServerAddress: "registry.example.com"}
		}
		const image = "registry.example.com/team/app:1"
		b.engine.AddImage(image, fake.Image{Pull: fake.Pull{Auth: auth("u", "right")}})
		secret := func(name, password string) plan.Config {
			return plan.Config{Ref: object.Ref{Kind: "Secret", Namespace: "default", Name: name}, Data: map[string][]byte{
				".dockerconfigjson": []byte(`{"auths":{"registry.example.com":{"username":"u","password":"` + password + `"}}}`),
			}}
		}
		if err := b.get(t, image, ""); !errors.Is(err, runtimes.ErrDenied) {
			t.Errorf("without credentials: %v", err)
		}
		// Another pod's credentials do not wait for the first one's back-off. The second that fit do it.
		b.pod.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "old"}, {Name: "absent"}, {Name: "new"}}
		b.pod.Configs = []plan.Config{secret("new", "right"), secret("old", "wrong")}
		if err := b.get(t, image, ""); err != nil {
			t.Fatal(err)
		}
		var tried []string
		for _, c := range b.engine.Calls() {
			if c.Kind == fake.CallPull && c.Auth != nil {
				tried = append(tried, c.Auth.Password)
			}
		}
		if d := cmp.Diff([]string{"wrong", "right"}, tried); d != "" {
			t.Error(d)
		}
		if !slices.ContainsFunc(b.events, func(s string) bool {
			return strings.HasPrefix(s, "Warning FailedToRetrieveImagePullSecret") && strings.Contains(s, "absent")
		}) {
			t.Errorf("nothing says that a secret is missing: %q", b.events)
		}
		if i := slices.IndexFunc(b.events, func(s string) bool { return strings.Contains(s, "right") || strings.Contains(s, "wrong") }); i >= 0 {
			t.Errorf("an event shows a password: %s", b.events[i])
		}
		b.pod.Configs[0].Data[".dockerconfigjson"] = []byte("{")
		b.engine.RemoveImage(image)
		b.forget(image)
		if err := b.get(t, image, ""); reasonOf(err) != reasonErrImagePull || !errors.Is(err, runtimes.ErrInvalid) {
			t.Errorf("a broken secret: %v", err)
		}
	})
}

func TestPullWithDockerConfig(t *testing.T) {
	config := filepath.Join(t.TempDir(), "config.json")
	synctest.Test(t, func(t *testing.T) {
		b := newImageBench(t)
		b.n.opt.DockerConfig = config // does not exist yet
		b.engine.AddImage("app:1", fake.Image{Pull: fake.Pull{Auth: &runtimes.Auth{Username: "u", Password: "p"}}})
		if err := b.get(t, "app:1", ""); !errors.Is(err, runtimes.ErrDenied) {
			t.Errorf("without the file: %v", err)
		}
		data := `{"auths":{"https://index.docker.io/v1/":{"auth":"dTpw"}},"credHelpers":{"r.io":"x"}}`
		if err := os.WriteFile(config, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := b.get(t, "app:1", ""); err != nil {
			t.Errorf("with the file: %v", err)
		}
	})
}

func TestPullEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newImageBench(t)
		b.engine.AddImage("app:1", fake.Image{Pull: fake.Pull{Takes: 3 * time.Second}})
		if err := b.pull(t.Context(), plan.PullImage{Image: "app:1"}); err != nil {
			t.Fatal(err)
		}
		if len(b.events) > 0 {
			t.Errorf("a pull for no pod told %q", b.events)
		}
		b.engine.RemoveImage("app:1")
		b.forget("app:1")
		for range 2 {
			if err := b.get(t, "app:1", ""); err != nil {
				t.Fatal(err)
			}
		}
		want := []string{
			`Normal Pulling Pulling image "app:1"`,
			`Normal Pulled Successfully pulled image "app:1" in 3s`,
			`Normal Pulled Container image "app:1" already present on machine`,
		}
		if d := cmp.Diff(want, b.events); d != "" {
			t.Error(d)
		}
	})
}

// TestPullProgress holds that progress is told to all who wait, though not every line.
func TestPullProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newImageBench(t)
		b.engine.AddImage("app:1", fake.Image{Pull: fake.Pull{Progress: []string{"one", "two", "three", "four"}, ProgressEvery: 1500 * time.Millisecond}})
		if err := b.get(t, "app:1", ""); err != nil {
			t.Fatal(err)
		}
		want := []string{
			`Normal Pulling Pulling image "app:1"`,
			`Normal Pulling Pulling image "app:1": two`,
			`Normal Pulling Pulling image "app:1": four`,
			`Normal Pulled Successfully pulled image "app:1" in 6s`,
		}
		if d := cmp.Diff(want, b.events); d != "" {
			t.Error(d)
		}
	})
}

func TestInspectIsCached(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newImageBench(t)
		b.engine.AddImage("app:1", fake.Image{Present: true})
		inspects := func(want int, when string) {
			t.Helper()
			if err := b.get(t, "app:1", ""); err != nil || b.count(fake.CallImage) != want {
				t.Errorf("%s: %d inspections, want %d (%v)", when, b.count(fake.CallImage), want, err)
			}
		}
		inspects(1, "first")
		inspects(1, "again")
		b.forget("app:1")
		inspects(2, "forgotten")
		time.Sleep(presentFor)
		inspects(3, "later")
	})
}

// TestLongPullIsNotStalled holds that a pull may take long as long as it goes on.
func TestLongPullIsNotStalled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newImageBench(t)
		b.engine.AddImage("app:1", fake.Image{Pull: fake.Pull{Progress: []string{"", "", ""}, ProgressEvery: pullStall - time.Second}})
		if err := b.get(t, "app:1", ""); err != nil {
			t.Error(err)
		}
	})
}
