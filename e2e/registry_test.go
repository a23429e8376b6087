package e2e

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// registry is an image registry on this machine that asks who one is. It holds one image,
// ADDRESS/private/program:1, which is the test program.
type registry struct {
	address string
	blobs   map[string][]byte
	types   map[string]string
}

const registryUser, registryPassword = "puller", "s3cret-of-the-registry"

// image is the reference of the image that the registry holds.
func (r *registry) image() string { return r.address + "/private/program:1" }

// serveRegistry serves until the test ends.
func serveRegistry(t testing.TB) *registry {
	t.Helper()
	r := &registry{blobs: map[string][]byte{}, types: map[string]string{}}
	layer := programLayer(t)
	config, err := json.Marshal(map[string]any{
		"architecture": goEnv(t, "GOARCH"), "os": "linux",
		"config": map[string]any{"Entrypoint": []string{"/program"}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{digest(layer)}},
	})
	if err != nil {
		t.Fatal(err)
	}
	const kind = "application/vnd.docker."
	manifest, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": kind + "distribution.manifest.v2+json",
		"config": map[string]any{"mediaType": kind + "container.image.v1+json", "size": len(config), "digest": r.add(config, "application/octet-stream")},
		"layers": []any{map[string]any{"mediaType": kind + "image.rootfs.diff.tar", "size": len(layer), "digest": r.add(layer, "application/octet-stream")}},
	})
	if err != nil {
		t.Fatal(err)
	}
	r.add(manifest, kind+"distribution.manifest.v2+json")
	r.blobs["1"], r.types["1"] = manifest, kind+"distribution.manifest.v2+json"
	s := httptest.NewServer(r)
	t.Cleanup(s.Close)
	r.address = strings.TrimPrefix(s.URL, "http://")
	return r
}

func (r *registry) add(b []byte, kind string) string {
	d := digest(b)
	r.blobs[d], r.types[d] = b, kind
	return d
}

func (r *registry) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
	if user, password, ok := req.BasicAuth(); !ok || user != registryUser || password != registryPassword {
		w.Header().Set("WWW-Authenticate", `Basic realm="registry"`)
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprint(w, `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`)
		return
	}
	if req.URL.Path == "/v2/" {
		return
	}
	rest, ok := strings.CutPrefix(req.URL.Path, "/v2/private/program/")
	kind, name, _ := strings.Cut(rest, "/")
	body := r.blobs[name]
	if !ok || body == nil || (kind != "manifests" && kind != "blobs") {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprint(w, `{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}`)
		return
	}
	w.Header().Set("Content-Type", r.types[name])
	w.Header().Set("Docker-Content-Digest", digest(body))
	w.Header().Set("Content-Length", fmt.Sprint(len(body)))
	if req.Method == http.MethodHead {
		return
	}
	_, _ = w.Write(body)
}

// dockerConfig is the content of a Secret of type kubernetes.io/dockerconfigjson, in base64.
func (r *registry) dockerConfig() string {
	auth := base64.StdEncoding.EncodeToString([]byte(registryUser + ":" + registryPassword))
	return base64.StdEncoding.EncodeToString(fmt.Appendf(nil, `{"auths":{%q:{"auth":%q}}}`, r.address, auth))
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

func goEnv(t testing.TB, name string) string {
	t.Helper()
	out, err := exec.Command("go", "env", name).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// programLayer is a layer that holds the test program.
func programLayer(t testing.TB) []byte {
	t.Helper()
	file := filepath.Join(t.TempDir(), "program")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", file, "github.com/fairlead-dev/fairlead/runtimes/runtimetest/program")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the test program: %v\n%s", err, out)
	}
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var layer bytes.Buffer
	tw := tar.NewWriter(&layer)
	if err := tw.WriteHeader(&tar.Header{Name: "program", Mode: 0o755, Size: int64(len(content))}); err != nil {
		t.Fatal(err)
	}
	if _, err := tw.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	return layer.Bytes()
}
