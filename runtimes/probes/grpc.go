package probes

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"

	corev1 "k8s.io/api/core/v1"
)

// newGRPCTransport speaks HTTP/2 without TLS, which is what gRPC calls are made of, and makes a connection
// for every attempt, as newTransport does.
func newGRPCTransport(d *net.Dialer) *http.Transport {
	t := newTransport(d)
	t.Protocols = new(http.Protocols)
	t.Protocols.SetUnencryptedHTTP2(true)
	return t
}

// The status codes of gRPC that a probe tells apart, as numbers of the header grpc-status.
const (
	grpcOK               = "0"
	grpcDeadlineExceeded = "4"
	grpcNotFound         = "5"
	grpcUnimplemented    = "12"
)

// health asks a server for its health with the one call of the gRPC health checking protocol. It is written here
// in full: the library is a quarter of the program's size, and what it would do beyond this, a probe must not.
func (r *Runner) health(ctx context.Context, a *corev1.GRPCAction, t Target) (Outcome, error) {
	target := address("", t, int(a.Port))
	var service string
	if a.Service != nil {
		service = *a.Service
	}
	u := url.URL{Scheme: "http", Host: target, Path: "/grpc.health.v1.Health/Check"}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), bytes.NewReader(healthRequest(service)))
	if err != nil {
		return Outcome{}, fmt.Errorf("grpc probe of %s: %w", target, err)
	}
	req.Header.Set("Content-Type", "application/grpc")
	req.Header.Set("Te", "trailers")
	req.Header.Set("User-Agent", userAgent)
	resp, err := r.grpc.RoundTrip(req)
	if err != nil {
		return healthFailed(target, err), nil
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	if err != nil {
		return healthFailed(target, err), nil
	}
	code, text := resp.Trailer.Get("Grpc-Status"), resp.Trailer.Get("Grpc-Message")
	if code == "" { // an answer without a message has everything in its header
		code, text = resp.Header.Get("Grpc-Status"), resp.Header.Get("Grpc-Message")
	}
	switch {
	case code == "" && resp.StatusCode != http.StatusOK:
		return Outcome{Message: fmt.Sprintf("the gRPC health check of %s failed: HTTP status %d", target, resp.StatusCode)}, nil
	case code == "":
		return Outcome{Message: fmt.Sprintf("the gRPC health check of %s failed: the answer is not one of gRPC", target)}, nil
	case code == grpcUnimplemented:
		return Outcome{Message: fmt.Sprintf("%s does not implement the gRPC health protocol (grpc.health.v1.Health)", target)}, nil
	case code == grpcDeadlineExceeded:
		return Outcome{Message: fmt.Sprintf("the gRPC health check of %s timed out", target)}, nil
	case code == grpcNotFound:
		return Outcome{Message: fmt.Sprintf("%s does not know the gRPC service %q", target, service)}, nil
	case code != grpcOK:
		if plain, err := url.PathUnescape(text); err == nil {
			text = plain
		}
		return Outcome{Message: fmt.Sprintf("the gRPC health check of %s failed with status %s: %s", target, excerpt([]byte(code)), excerpt([]byte(text)))}, nil
	}
	switch status, ok := healthStatus(body); {
	case !ok:
		return Outcome{Message: fmt.Sprintf("the gRPC health check of %s failed: the answer cannot be decoded", target)}, nil
	case status != serving:
		return Outcome{Message: fmt.Sprintf("%s answered that service %q is %s", target, service, status)}, nil
	}
	return Outcome{Success: true}, nil
}

func healthFailed(target string, err error) Outcome {
	var slow net.Error
	if errors.Is(err, context.DeadlineExceeded) || errors.As(err, &slow) && slow.Timeout() {
		return Outcome{Message: fmt.Sprintf("the gRPC health check of %s timed out", target)}
	}
	return Outcome{Message: fmt.Sprintf("the gRPC health check of %s failed: %s", target, excerpt([]byte(err.Error())))}
}

// A message of gRPC is a byte that tells whether it is compressed, its length in four bytes, and a protocol buffer.
const framing = 5

// healthRequest is a grpc.health.v1.HealthCheckRequest: field 1 is the name of the service, left out when empty.
func healthRequest(service string) []byte {
	var msg []byte
	if service != "" {
		msg = binary.AppendUvarint([]byte{1<<3 | wireBytes}, uint64(len(service)))
		msg = append(msg, service...)
	}
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(msg))), msg...)
}

// servingStatus is the ServingStatus of a grpc.health.v1.HealthCheckResponse.
type servingStatus uint64

const serving servingStatus = 1

func (s servingStatus) String() string {
	if names := []string{"UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"}; s < servingStatus(len(names)) {
		return names[s]
	}
	return strconv.FormatUint(uint64(s), 10)
}

// The wire types of protocol buffers.
const (
	wireVarint  = 0
	wireFixed64 = 1
	wireBytes   = 2
	wireFixed32 = 5
)

// healthStatus reads a grpc.health.v1.HealthCheckResponse, whose field 1 is the status; unknown fields are passed over.
func healthStatus(body []byte) (servingStatus, bool) {
	if len(body) < framing || body[0] != 0 || uint64(binary.BigEndian.Uint32(body[1:])) != uint64(len(body)-framing) {
		return 0, false
	}
	var status servingStatus
	for b := body[framing:]; len(b) > 0; {
		tag, n := binary.Uvarint(b)
		if n <= 0 {
			return 0, false
		}
		b = b[n:]
		skip := uint64(0)
		switch tag & 7 {
		case wireVarint:
			v, n := binary.Uvarint(b)
			if n <= 0 {
				return 0, false
			}
			if tag>>3 == 1 {
				status = servingStatus(v)
			}
			skip = uint64(n)
		case wireFixed64:
			skip = 8
		case wireBytes:
			l, n := binary.Uvarint(b)
			if n <= 0 {
				return 0, false
			}
			b, skip = b[n:], l
		case wireFixed32:
			skip = 4
		default:
			return 0, false
		}
		if skip > uint64(len(b)) {
			return 0, false
		}
		b = b[skip:]
	}
	return status, true
}
