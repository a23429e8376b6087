package e2e

import (
	"context"
	"encoding/base64"
	"io"
	"log"
	"net/http/httptest"
	"strings"

	"github.com/docker/docker/api/types/image"
	containerregistry "github.com/google/go-containerregistry/pkg/registry"
	"github.com/rogpeppe/go-internal/testscript"
)

// cmdPublish pushes an image of the engine to the script's registry, which the first call starts at $REGISTRY. The
// engine keeps nothing of it: who wants to run it pulls it.
func cmdPublish(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: publish IMAGE NAME:TAG")
	}
	h := hostOf(ts)
	if h.registry == "" {
		s := httptest.NewServer(containerregistry.New(containerregistry.Logger(log.New(io.Discard, "", 0))))
		ts.Defer(s.Close)
		h.registry = strings.TrimPrefix(s.URL, "http://")
		ts.Setenv("REGISTRY", h.registry)
	}
	ctx, ref := context.Background(), h.registry+"/"+args[1]
	forget := func() error {
		_, err := h.engine.ImageRemove(ctx, ref, image.RemoveOptions{})
		return err
	}
	ts.Check(h.engine.ImageTag(ctx, args[0], ref))
	ts.Defer(func() { _ = forget() }) // what was pulled meanwhile
	answer, err := h.engine.ImagePush(ctx, ref, image.PushOptions{RegistryAuth: base64.URLEncoding.EncodeToString([]byte("{}"))})
	ts.Check(err)
	said, err := io.ReadAll(answer)
	answer.Close()
	ts.Check(err)
	if strings.Contains(string(said), `"error"`) {
		ts.Fatalf("push %s: %s", ref, said)
	}
	ts.Check(forget())
}
