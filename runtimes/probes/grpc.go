package probes

import (
	"context"
	"fmt"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
)

// health asks a server for its health as the gRPC health checking protocol describes it.
func (r *Runner) health(ctx context.Context, a *corev1.GRPCAction, t Target) (Outcome, error) {
	target := address("", t, int(a.Port))
	conn, err := grpc.NewClient("passthrough:///"+target,
		grpc.WithUserAgent(userAgent),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithNoProxy(),
		grpc.WithDisableServiceConfig(),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
			return r.dialer.DialContext(ctx, "tcp", addr)
		}),
	)
	if err != nil {
		return Outcome{}, fmt.Errorf("grpc probe of %s: %w", target, err)
	}
	defer conn.Close()
	var service string
	if a.Service != nil {
		service = *a.Service
	}
	resp, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{Service: service})
	if err != nil {
		switch st := status.Convert(err); st.Code() {
		case codes.Unimplemented:
			return Outcome{Message: fmt.Sprintf("%s does not implement the gRPC health protocol (grpc.health.v1.Health)", target)}, nil
		case codes.DeadlineExceeded:
			return Outcome{Message: fmt.Sprintf("the gRPC health check of %s timed out", target)}, nil
		case codes.NotFound:
			return Outcome{Message: fmt.Sprintf("%s does not know the gRPC service %q", target, service)}, nil
		default:
			return Outcome{Message: fmt.Sprintf("the gRPC health check of %s failed: %s", target, excerpt([]byte(st.Message())))}, nil
		}
	}
	if resp.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		return Outcome{Message: fmt.Sprintf("%s answered that service %q is %s", target, service, resp.GetStatus())}, nil
	}
	return Outcome{Success: true}, nil
}
