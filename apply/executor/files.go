package executor

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/runtimes"
	"github.com/fairlead-dev/fairlead/runtimes/networking"
)

// writeFiles writes the files that all containers of the pod mount, and tells what of the pod's DNS
// settings could not be had.
func (n *Node) writeFiles(pod *plan.Pod, uid, ip string) error {
	_, warnings, err := n.podFiles(pod, uid, ip)
	for _, w := range warnings {
		n.emit(pod, uid, "", true, "DNSConfigForming", w)
	}
	return err
}

// podFiles writes the files that all containers of the pod mount and returns them as mounts. Writing
// them again changes nothing.
func (n *Node) podFiles(pod *plan.Pod, uid, ip string) (mounts []runtimes.Mount, warnings []string, err error) {
	var ips []netip.Addr
	if ip != "" {
		a, err := netip.ParseAddr(ip)
		if err != nil {
			return nil, nil, fmt.Errorf("pod %s: address: %w", pod.PodKey, err)
		}
		ips = append(ips, a)
	}
	var host []byte
	if pod.Spec.HostNetwork {
		if host, err = os.ReadFile("/etc/hosts"); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, nil, fmt.Errorf("pod %s: read the host's names: %w", pod.PodKey, err)
		}
	}
	resolvConf, warnings := networking.ResolvConf(pod, n.opt.DNS)
	files := []struct {
		name string
		data []byte
	}{
		{"hosts", networking.Hosts(pod, ips, n.opt.DNS.ClusterDomain, host)},
		{"resolv.conf", resolvConf},
	}
	if !pod.Spec.HostNetwork {
		hostname, err := networking.KernelHostname(pod, n.opt.DNS.ClusterDomain)
		if err != nil {
			return nil, nil, fmt.Errorf("%w: %w", err, runtimes.ErrInvalid)
		}
		files = append(files, struct {
			name string
			data []byte
		}{"hostname", []byte(hostname + "\n")})
	}
	for _, f := range files {
		path, err := n.opt.Volumes.WriteFile(uid, f.name, f.data)
		if err != nil {
			return nil, nil, fmt.Errorf("pod %s: %w", pod.PodKey, err)
		}
		mounts = append(mounts, runtimes.Mount{Source: path, Target: "/etc/" + f.name})
	}
	return mounts, warnings, nil
}
