package names

import (
	"net/netip"
	"os"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/miekg/dns"
)

const (
	hostFile = "/etc/resolv.conf"
	// resolvedFile has the servers that systemd-resolved asks, resolvedStub is where it answers itself.
	resolvedFile = "/run/systemd/resolve/resolv.conf"
	// lookAgain is how old what is known of the files may be.
	lookAgain = 2 * time.Second
)

var resolvedStub = netip.MustParsePrefix("127.0.0.53/32")

// hostServers are the name servers of the host, which can change while this server runs.
type hostServers struct {
	files []string
	ours  func(netip.AddrPort) bool

	mu      sync.Mutex
	looked  time.Time
	states  []fileState
	servers []netip.AddrPort
}

// fileState tells whether a file changed.
type fileState struct {
	modified time.Time
	size     int64
}

func newHostServers(file string, ours func(netip.AddrPort) bool) *hostServers {
	if file != "" {
		return &hostServers{files: []string{file}, ours: ours}
	}
	return &hostServers{files: []string{hostFile, resolvedFile}, ours: ours}
}

// get returns the servers of the first file that names one which is neither this server nor systemd-resolved's stub; when
// there is none, the stub.
func (h *hostServers) get() []netip.AddrPort {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	if now.Sub(h.looked) < lookAgain {
		return h.servers
	}
	h.looked = now
	states := make([]fileState, len(h.files))
	for i, name := range h.files {
		if info, err := os.Stat(name); err == nil {
			states[i] = fileState{info.ModTime(), info.Size()}
		}
	}
	if h.states != nil && slices.Equal(states, h.states) {
		return h.servers
	}
	h.states = states
	var stub []netip.AddrPort
	h.servers = nil
	for _, name := range h.files {
		for _, a := range fileServers(name) {
			switch {
			case h.ours(a):
			case resolvedStub.Contains(a.Addr()):
				stub = append(stub, a)
			default:
				h.servers = append(h.servers, a)
			}
		}
		if len(h.servers) > 0 {
			return h.servers
		}
	}
	h.servers = stub
	return h.servers
}

// fileServers reads the name servers from a file like resolv.conf(5). A file that is not there has none.
func fileServers(name string) []netip.AddrPort {
	c, err := dns.ClientConfigFromFile(name)
	if err != nil {
		return nil
	}
	port, err := strconv.ParseUint(c.Port, 10, 16)
	if err != nil {
		port = 53
	}
	var out []netip.AddrPort
	for _, s := range c.Servers {
		if ip, err := netip.ParseAddr(s); err == nil {
			out = append(out, netip.AddrPortFrom(ip, uint16(port)))
		}
	}
	return out
}
