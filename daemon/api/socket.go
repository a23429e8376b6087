package api

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// maxSocketPath is what Linux allows in sockaddr_un, the final zero left out.
const maxSocketPath = 107

// Listen makes the socket at path, readable and writable for its owner only. What a dead daemon left
// there is replaced; a daemon that answers there is ErrConflict. Close removes the socket.
func Listen(ctx context.Context, path string) (net.Listener, error) {
	tmp := path + "." + strconv.Itoa(os.Getpid())
	if len(tmp) > maxSocketPath {
		return nil, fmt.Errorf("%w: the socket path %s is longer than the %d bytes that the system allows; choose a shorter one with --socket", ErrInvalid, path, maxSocketPath-len(tmp)+len(path))
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("create the socket's directory: %w", err)
	}
	switch conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "unix", path); {
	case err == nil:
		conn.Close()
		return nil, fmt.Errorf("%w: another fairlead answers on the socket %s; stop it, or choose another --socket and --state-dir", ErrConflict, path)
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
	default:
		if fi, serr := os.Lstat(path); serr == nil && fi.Mode().Type() != os.ModeSocket {
			return nil, fmt.Errorf("%w: %s exists and is not a socket; choose another --socket", ErrConflict, path)
		}
		return nil, fmt.Errorf("look at the socket %s: %w", path, err)
	}
	if fi, err := os.Lstat(path); err == nil && fi.Mode().Type() != os.ModeSocket {
		return nil, fmt.Errorf("%w: %s exists and is not a socket; choose another --socket", ErrConflict, path)
	}
	// The name becomes visible only with its final mode.
	os.Remove(tmp)
	l, err := (&net.ListenConfig{}).Listen(ctx, "unix", tmp)
	if err != nil {
		return nil, fmt.Errorf("listen on the socket %s: %w", path, err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := os.Chmod(tmp, 0o600); err == nil {
		err = os.Rename(tmp, path)
		if err == nil {
			return &listener{Listener: l, path: path}, nil
		}
	}
	l.Close()
	os.Remove(tmp)
	return nil, fmt.Errorf("put the socket at %s: %w", path, err)
}

type listener struct {
	net.Listener
	path string
}

// Accept waits for a connection of the owner of this process or of root. The mode of the socket keeps
// the others out already; this holds when somebody changed it. Others are disconnected.
func (l *listener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if uid, err := peer(conn); err == nil && mayTalk(uid, uint32(os.Geteuid())) {
			return conn, nil
		}
		conn.Close()
	}
}

// mayTalk reports whether a user may talk to a daemon that runs as owner.
func mayTalk(uid, owner uint32) bool { return uid == owner || uid == 0 }

// peer returns the user at the other end of a unix socket, as the kernel noted it when it connected.
func peer(conn net.Conn) (uid uint32, err error) {
	c, ok := conn.(*net.UnixConn)
	if !ok {
		return 0, fmt.Errorf("%T is no unix socket", conn)
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return 0, err
	}
	if credErr != nil {
		return 0, credErr
	}
	return cred.Uid, nil
}

type peerKey struct{}

// withPeer remembers the user at the other end of a connection.
func withPeer(ctx context.Context, conn net.Conn) context.Context {
	uid, err := peer(conn)
	if err != nil {
		return ctx
	}
	return context.WithValue(ctx, peerKey{}, uid)
}

// Peer returns the user who makes the request that ctx belongs to; false when it did not come over a unix socket.
func Peer(ctx context.Context) (uid uint32, known bool) {
	uid, known = ctx.Value(peerKey{}).(uint32)
	return uid, known
}

// Close ends listening and removes the socket.
func (l *listener) Close() error {
	os.Remove(l.path)
	return l.Listener.Close()
}
