package probes

import (
	"context"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// FuzzRequest makes requests of arbitrary probes: nothing panics, and the request goes to the container unless the
// probe names another host.
func FuzzRequest(f *testing.F) {
	f.Add("/healthz?a=b", "", "X-A", "b", "http", int64(8080))
	f.Add("http://evil.example.com/x", "", "Host", "other", "80", int64(0))
	f.Add("//evil.example.com/x", "", "host", "a\r\nb: c", "-1", int64(70000))
	f.Add("%zz", "::1", "", "", "", int64(-1))
	f.Fuzz(func(t *testing.T, path, host, header, value, port string, number int64) {
		p := intstr.FromString(port)
		if number != 0 {
			p = intstr.IntOrString{Type: intstr.Int, IntVal: int32(number)}
		}
		c := &corev1.Container{Name: "c", Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 80}}}
		req, err := newRequest(context.Background(), &corev1.HTTPGetAction{Path: path, Host: host, Port: p, HTTPHeaders: []corev1.HTTPHeader{{Name: header, Value: value}}}, c, Target{IP: "10.0.0.1"})
		if err != nil {
			return
		}
		if got := req.URL.Hostname(); host == "" && got != "10.0.0.1" {
			t.Errorf("%q goes to %q", path, got)
		}
	})
}

// FuzzExcerpt shortens arbitrary answers.
func FuzzExcerpt(f *testing.F) {
	f.Add([]byte("not ready\xff\x1b[2J"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s := excerpt(b); len(s) > 3*maxMessage+8 {
			t.Errorf("%d bytes", len(s))
		}
	})
}
