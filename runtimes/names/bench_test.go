package names

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// BenchmarkAnswers is the time of one answer over UDP on the loopback, with sixteen clients of which each has one question
// under way at a time; the clients' work is part of it. With FAIRLEAD_BENCH_COREDNS, the path of a CoreDNS (see
// e2e/tools/coredns), that answers the same names from a hosts file.
func BenchmarkAnswers(b *testing.B) {
	routes := big(1000)
	var queries [][]byte
	var hosts strings.Builder
	for i, r := range routes {
		if i%2 == 0 { // those with a cluster address have one
			continue
		}
		name := r.Name + ".shop.svc.cluster.local"
		raw, err := query(name+".", dns.TypeA).Pack()
		if err != nil {
			b.Fatal(err)
		}
		queries = append(queries, raw)
		fmt.Fprintf(&hosts, "%s %s\n", r.Spec.ClusterIP, name)
	}
	b.Run("fairlead", func(b *testing.B) {
		_, server := start(b, options(), routes)
		benchmark(b, server, queries)
	})
	b.Run("coredns", func(b *testing.B) {
		path := os.Getenv("FAIRLEAD_BENCH_COREDNS")
		if path == "" {
			b.Skip("FAIRLEAD_BENCH_COREDNS does not say where CoreDNS is: build it in e2e/tools/coredns")
		}
		dir := b.TempDir()
		port := nowhere(b)
		corefile := fmt.Sprintf("cluster.local:%d {\n\tbind 127.0.0.1\n\thosts %s {\n\t\tttl 5\n\t}\n}\n", port.Port(), filepath.Join(dir, "hosts"))
		for name, content := range map[string]string{"Corefile": corefile, "hosts": hosts.String()} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
				b.Fatal(err)
			}
		}
		cmd := exec.Command(path, "-conf", filepath.Join(dir, "Corefile"))
		if err := cmd.Start(); err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		})
		c := &dns.Client{Timeout: 100 * time.Millisecond}
		for deadline := time.Now().Add(20 * time.Second); ; {
			m, _, err := c.Exchange(query("service-0001.shop.svc.cluster.local.", dns.TypeA), port.String())
			if err == nil && len(m.Answer) == 1 {
				break
			}
			if time.Now().After(deadline) {
				b.Fatalf("CoreDNS does not answer: %v %v", err, m)
			}
			time.Sleep(50 * time.Millisecond)
		}
		benchmark(b, port.String(), queries)
	})
}

func benchmark(b *testing.B, server string, queries [][]byte) {
	const clients = 16
	var all sync.WaitGroup
	b.ResetTimer()
	began := time.Now()
	for i := range clients {
		all.Go(func() {
			c, err := net.Dial("udp", server)
			if err != nil {
				b.Error(err)
				return
			}
			defer c.Close()
			buf := make([]byte, 1500)
			for n := i; n < b.N; n += clients {
				_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
				if _, err := c.Write(queries[n%len(queries)]); err != nil {
					b.Error(err)
					return
				}
				if got, err := c.Read(buf); err != nil || got < 40 || buf[3]&0xf != 0 || buf[7] != 1 {
					b.Errorf("%v % x", err, buf[:max(got, 0)])
					return
				}
			}
		})
	}
	all.Wait()
	b.ReportMetric(float64(b.N)/time.Since(began).Seconds(), "answers/s")
}
