package executor

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestDNSWarnings holds that what is left out of a resolv.conf is told.
func TestDNSWarnings(t *testing.T) {
	n, files := specNode(t)
	var got []string
	n.opt.OnEvent = func(e Event) { got = append(got, e.Type()+" "+e.UID+" "+e.Reason+" "+e.Message) }
	n.opt.DNS.Host = []byte("nameserver 127.0.0.53\nnameserver 192.0.2.53\n")
	pod := podOf(t, []byte("apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {containers: [{name: app, image: app}]}"))
	if err := n.writeFiles(pod, "uid-1", "10.99.0.2"); err != nil {
		t.Fatal(err)
	}
	want := []string{"Warning uid-1 DNSConfigForming name servers of the host on its loopback interface were left out, because the pod cannot reach them"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if files.files["resolv.conf"] != "nameserver 192.0.2.53\n" {
		t.Errorf("resolv.conf is %q", files.files["resolv.conf"])
	}
	if err := n.writeFiles(pod, "uid-1", "no address"); err == nil {
		t.Error("what is no address is taken")
	}
}
