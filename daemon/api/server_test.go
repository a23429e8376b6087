package api

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestBadRequests checks what the server says to requests that no Client sends.
func TestBadRequests(t *testing.T) {
	h := (&server{b: NewClient("/nonexistent")}).handler() // none of them reaches the backend
	for _, tt := range []struct {
		name, method, path, body string
		status                   int
		want                     string
	}{
		{"unknown path", "GET", "/v1/nothing", "", 404, "different versions"},
		{"unknown version", "GET", "/v2/status", "", 404, "different versions"},
		{"unknown field", "POST", "/v1/down", `{"dryRunn":true}`, 400, "dryRunn"},
		{"not JSON", "POST", "/v1/pods", `pods`, 400, "read the request"},
		{"exec without upgrade", "POST", "/v1/exec", `{}`, 400, "Upgrade"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest(tt.method, tt.path, strings.NewReader(tt.body)))
			if w.Code != tt.status || !strings.Contains(w.Body.String(), tt.want) {
				t.Errorf("%d %s", w.Code, w.Body)
			}
		})
	}
}

func TestFrames(t *testing.T) {
	var buf bytes.Buffer
	fw := &frameWriter{w: &buf}
	big := bytes.Repeat([]byte("x"), maxFrame+5)
	for _, p := range [][]byte{[]byte("a"), nil, big} {
		if err := fw.frame(frameStdout, p); err != nil {
			t.Fatal(err)
		}
	}
	var sizes []int
	for {
		_, p, err := readFrame(&buf)
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		sizes = append(sizes, len(p))
	}
	if len(sizes) != 4 || sizes[0] != 1 || sizes[1] != 0 || sizes[2] != maxFrame || sizes[3] != 5 {
		t.Errorf("sizes = %v", sizes)
	}
	huge := binary.BigEndian.AppendUint32([]byte{frameStdout}, 1<<31)
	if _, _, err := readFrame(bytes.NewReader(huge)); err == nil || err == io.EOF {
		t.Errorf("a frame of 2 GiB: %v", err)
	}
	if _, _, err := readFrame(bytes.NewReader([]byte{frameStdout, 0, 0, 0, 9, 'x'})); err == nil || err == io.EOF {
		t.Errorf("a cut frame: %v", err)
	}
}

// deaf is a Backend whose commands read one byte of their input and no more.
type deaf struct {
	Backend
	began, ended chan struct{}
}

func (d deaf) Exec(ctx context.Context, _ ExecRequest, st Streams) (int, error) {
	if _, err := st.Stdin.Read(make([]byte, 1)); err != nil {
		return 0, err
	}
	close(d.began)
	<-ctx.Done()
	close(d.ended)
	return 0, ctx.Err()
}

// TestExecNoticesAClientThatIsGone checks it when the client's input waits to be read: then nobody reads
// the connection, whose end would show it.
func TestExecNoticesAClientThatIsGone(t *testing.T) {
	b := deaf{began: make(chan struct{}), ended: make(chan struct{})}
	s := &server{b: b, aliveEvery: 10 * time.Millisecond}
	path := filepath.Join(t.TempDir(), "s")
	l, err := Listen(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: s.handler()}
	served := make(chan struct{})
	go func() { defer close(served); _ = srv.Serve(l) }()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := NewClient(path).Exec(ctx, ExecRequest{Command: []string{"sleep"}, Stdin: true}, Streams{Stdin: strings.NewReader("much"), Stdout: io.Discard, Stderr: io.Discard})
		done <- err
	}()
	<-b.began
	cancel()
	<-b.ended // hangs if it is not noticed
	if err := <-done; err != context.Canceled {
		t.Errorf("Exec = %v", err)
	}
	srv.Close()
	<-served
	s.upgraded.Wait()
}
