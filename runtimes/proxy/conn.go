package proxy

import (
	"io"
	"net"
)

// pair is a client's connection and that to its endpoint. Its fields belong to Proxy.mu; the connections themselves
// do not change once they are there.
type pair struct {
	client, backend *conn
	application     string
	aborted         bool
}

// abort resets both connections.
func (c *pair) abort() {
	c.aborted = true
	reset(c.client.TCPConn)
	if c.backend != nil {
		reset(c.backend.TCPConn)
	}
}

// reset closes a connection so that the other side sees that it did not end well.
func reset(c *net.TCPConn) {
	_ = c.SetLinger(0)
	_ = c.Close()
}

// conn is one side of a pair as the library copies it: the kernel moves the bytes, as it does between two bare
// connections, and when one side breaks, so does the other, where a copy that ends would look like a proper end.
type conn struct {
	*net.TCPConn
}

// WriteTo copies what c receives to the other side until c ends.
func (c *conn) WriteTo(w io.Writer) (int64, error) {
	to, ok := w.(*conn)
	if !ok {
		return c.TCPConn.WriteTo(w)
	}
	n, err := to.TCPConn.ReadFrom(c.TCPConn)
	if err != nil {
		reset(c.TCPConn)
		reset(to.TCPConn)
	}
	return n, err
}
