// Package httpserve ends HTTP servers the way all of the daemon's are ended.
package httpserve

import (
	"context"
	"errors"
	"net"
	"net/http"
	"time"
)

// Until has srv answer on l until ctx ends; what is under way then may take grace to finish. It closes l. That it was
// told to end is no error.
func Until(ctx context.Context, srv *http.Server, l net.Listener, grace time.Duration) error {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		<-ctx.Done()
		finishing, stop := context.WithTimeout(context.WithoutCancel(ctx), grace)
		defer stop()
		if srv.Shutdown(finishing) != nil {
			srv.Close()
		}
	}()
	err := srv.Serve(l)
	cancel()
	<-done
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}
