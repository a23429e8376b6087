package api_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/fairlead-dev/fairlead/daemon/api"
	"github.com/fairlead-dev/fairlead/daemon/api/apitest"
)

// asked remembers who made the last request.
type asked struct {
	*apitest.Backend
	uid   uint32
	known bool
}

func (a *asked) Approve(ctx context.Context, r api.ApproveRequest) (api.ApproveResult, error) {
	a.uid, a.known = api.Peer(ctx)
	return a.Backend.Approve(ctx, r)
}

// The backend is told by the kernel who is at the other end of the socket.
func TestPeer(t *testing.T) {
	b := &asked{Backend: apitest.New(state)}
	path := filepath.Join(t.TempDir(), "s")
	l, err := api.Listen(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- api.Serve(ctx, l, b) }()
	c := api.NewClient(path)
	if _, err := c.Approve(t.Context(), api.ApproveRequest{Application: "shop", Digest: state.Approve.Approved.Digest}); err != nil {
		t.Error(err)
	}
	c.Close()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if !b.known || b.uid != uint32(os.Getuid()) {
		t.Errorf("the peer is %d (known: %t), want %d", b.uid, b.known, os.Getuid())
	}
	if _, known := api.Peer(t.Context()); known {
		t.Error("a peer without a socket")
	}
}
