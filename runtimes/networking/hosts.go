package networking

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-dev/fairlead/plan"
)

// maxHostname is what the kernel and DNS take for one label.
const maxHostname = 63

// Hostname returns the name of a pod's host, at most 63 bytes, and the domain that its subdomain
// puts it in, which is empty without one.
func Hostname(pod *plan.Pod, clusterDomain string) (hostname, domain string) {
	if o := pod.Spec.HostnameOverride; o != nil {
		return cutHostname(*o), ""
	}
	hostname = pod.Name
	if pod.Spec.Hostname != "" {
		hostname = pod.Spec.Hostname
	}
	if sub := pod.Spec.Subdomain; sub != "" {
		domain = strings.Join([]string{sub, pod.Namespace, "svc", clusterDomain}, ".")
	}
	return cutHostname(hostname), domain
}

// KernelHostname returns the hostname that the pod's processes see: the full name with
// setHostnameAsFQDN, which is an error when it does not fit the kernel's 64 bytes.
func KernelHostname(pod *plan.Pod, clusterDomain string) (string, error) {
	hostname, domain := Hostname(pod, clusterDomain)
	if s := pod.Spec.SetHostnameAsFQDN; s == nil || !*s || domain == "" {
		return hostname, nil
	}
	if full := hostname + "." + domain; len(full) <= 64 {
		return full, nil
	}
	return "", fmt.Errorf("pod %s: setHostnameAsFQDN: the name %s.%s has more than the 64 bytes that a hostname can have: shorten hostname or subdomain",
		pod.PodKey, hostname, domain)
}

func cutHostname(s string) string {
	if len(s) <= maxHostname {
		return s
	}
	return strings.TrimRight(s[:maxHostname], "-.")
}

// Hosts returns a pod's /etc/hosts. A pod on the host's network has the host's file, which is
// given as host; every other pod has its own names and addresses. hostAliases follow in both.
func Hosts(pod *plan.Pod, ips []netip.Addr, clusterDomain string, host []byte) []byte {
	var b bytes.Buffer
	if pod.Spec.HostNetwork {
		b.WriteString("# Written by fairlead: the host's file, because the pod is on the host's network.\n")
		b.Write(host)
		if len(host) > 0 && host[len(host)-1] != '\n' {
			b.WriteByte('\n')
		}
	} else {
		b.WriteString("# Written by fairlead.\n")
		b.WriteString("127.0.0.1\tlocalhost\n")
		b.WriteString("::1\tlocalhost ip6-localhost ip6-loopback\n")
		b.WriteString("fe00::0\tip6-localnet\n")
		b.WriteString("fe00::0\tip6-mcastprefix\n")
		b.WriteString("fe00::1\tip6-allnodes\n")
		b.WriteString("fe00::2\tip6-allrouters\n")
		hostname, domain := Hostname(pod, clusterDomain)
		for _, ip := range ips {
			b.WriteString(ip.String() + "\t")
			if domain != "" {
				b.WriteString(hostname + "." + domain + "\t")
			}
			b.WriteString(hostname + "\n")
		}
	}
	writeAliases(&b, pod.Spec.HostAliases)
	return b.Bytes()
}

func writeAliases(b *bytes.Buffer, aliases []corev1.HostAlias) {
	if len(aliases) == 0 {
		return
	}
	b.WriteString("\n# The pod's hostAliases.\n")
	for _, a := range aliases {
		b.WriteString(a.IP + "\t" + strings.Join(a.Hostnames, "\t") + "\n")
	}
}
