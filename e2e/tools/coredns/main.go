// Command coredns is CoreDNS with what the benchmark of names compares with: a file of hosts, and an address to listen on.
//
//	cd e2e/tools/coredns && go build -o /tmp/coredns .
//	FAIRLEAD_BENCH_COREDNS=/tmp/coredns go test -run '^$' -bench Answers ./runtimes/names
package main

import (
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"
	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/coredns/coredns/plugin/hosts"
)

func main() {
	dnsserver.Directives = []string{"bind", "hosts"}
	coremain.Run()
}
