package api

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/fairlead-dev/fairlead/render/object"
)

// FuzzFrames reads arbitrary frames as the daemon reads those of a command's input: nothing panics, no frame is
// larger than it may be, and what was read makes the same bytes.
func FuzzFrames(f *testing.F) {
	var b bytes.Buffer
	fw := &frameWriter{w: &b}
	_ = fw.frame(frameStdin, []byte("ls\n"))
	_ = fw.frame(frameResize, resizePayload([2]uint{24, 80}))
	_ = fw.frame(frameStdinEOF, nil)
	f.Add(b.Bytes())
	f.Add([]byte{frameResize, 0, 0, 0, 1, 0})
	f.Add([]byte{frameStdin, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, data []byte) {
		var again bytes.Buffer
		for r := bytes.NewReader(data); ; {
			kind, p, err := readFrame(r)
			if err != nil {
				break
			}
			if len(p) > maxFrame {
				t.Fatalf("a frame of %d bytes", len(p))
			}
			if err := (&frameWriter{w: &again}).frame(kind, p); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.HasPrefix(data, again.Bytes()) {
			t.Errorf("%x became %x", data, again.Bytes())
		}
		stdin, to := io.Pipe()
		stdin.Close()
		if err := readInput(t.Context(), bytes.NewReader(data), to, make(chan [2]uint, 1)); err == nil {
			t.Error("the input has no end")
		}
	})
}

// nobody is a backend that has nothing.
type nobody struct{ Backend }

func (nobody) Objects(_ context.Context, q Query) ([]Object, error) {
	_, err := q.Matcher()
	return nil, err
}
func (nobody) Pods(_ context.Context, q Query) ([]Pod, error) {
	_, err := q.Matcher()
	return nil, err
}
func (nobody) Plan(context.Context, PlanRequest, func(Event)) (PlanResult, error) {
	return PlanResult{}, ErrInvalid
}
func (nobody) Down(context.Context, DownRequest, func(Event)) (DownResult, error) {
	return DownResult{}, ErrInvalid
}

// FuzzRequest sends arbitrary requests to the socket's handler: nothing panics, and what is refused says why.
func FuzzRequest(f *testing.F) {
	for _, path := range []string{"/v1/objects", "/v1/pods", "/v1/plan", "/v1/down", "/v1/nothing", "//v1/pods", "/v1/%2e%2e/pods"} {
		f.Add("POST", path, []byte(`{"selector":"a in (b,c),!d","kinds":["Pod"],"applications":["x"],"ref":"-x"}`))
	}
	f.Add("GET", "/v1/status", []byte(`{`))
	h := (&server{b: nobody{}}).handler()
	f.Fuzz(func(t *testing.T, method, path string, body []byte) {
		method = strings.ToUpper(method)
		switch path {
		case "/v1/objects", "/v1/pods", "/v1/plan", "/v1/down":
		default:
			if served := strings.TrimPrefix(path, "/v1/"); served != path && !strings.ContainsAny(served, "%/.") && served != "nothing" {
				return // other calls of the backend are not there
			}
		}
		req, err := http.NewRequest(method, "http://fairlead", bytes.NewReader(body))
		if err != nil {
			return
		}
		req.URL.Path = path
		w := httptest.NewRecorder()
		h.ServeHTTP(w, req)
		if w.Code >= 400 && w.Body.Len() == 0 && method != http.MethodHead {
			t.Errorf("%s %q: %d without a word", method, path, w.Code)
		}
	})
}

// FuzzQuery selects with arbitrary queries: the same query selects the same, and none that cannot be parsed selects.
func FuzzQuery(f *testing.F) {
	f.Add([]byte(`{"selector":"app=web,tier notin (db)","namespace":"shop","names":["a"]}`), "app", "web")
	f.Add([]byte(`{"selector":"a==b,!c,d>1"}`), "d", "2")
	f.Fuzz(func(t *testing.T, query []byte, key, value string) {
		var q Query
		if json.Unmarshal(query, &q) != nil {
			return
		}
		m, err := q.Matcher()
		if err != nil {
			return
		}
		o := Object{Ref: object.Ref{Kind: "Pod", Namespace: q.Namespace, Name: "a"}, Labels: map[string]string{key: value}}
		if m.Object(o) != m.Object(o) {
			t.Error("two answers")
		}
	})
}
