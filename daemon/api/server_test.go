package api

import (
	"bytes"
	"encoding/binary"
	"io"
	"net/http/httptest"
	"strings"
	"testing"
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
