// Package signals catches the signals that end the program, from before most of it is initialised.
//
// Between the start of the program and main, packages are initialised for some tens of milliseconds, hundreds on a
// busy machine. A service that is stopped in that time would be killed by the signal, and seem to have failed. Packages are
// initialised in the order of their paths, so that this one, which needs little, comes before nearly all of the heavy ones.
package signals

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// caught holds the signals until there is a context that they end. It is the one variable of a package that changes: nothing
// else is there so early.
var caught = catch()

func catch() chan os.Signal {
	c := make(chan os.Signal, 1)
	signal.Notify(c, os.Interrupt, syscall.SIGTERM)
	return c
}

// Context returns a context that ends with the first SIGTERM or SIGINT since the program was started. The second one kills
// the program, as nothing catches it any more. It is called once.
func Context() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	go func() { // until the program ends
		<-caught
		signal.Stop(caught)
		cancel()
	}()
	return ctx
}
