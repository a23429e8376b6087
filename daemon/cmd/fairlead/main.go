// Command fairlead keeps Docker hosts running true to Git.
package main

import (
	"os"

	"github.com/fairlead-dev/fairlead/daemon/cli"
	"github.com/fairlead-dev/fairlead/daemon/cmd/fairlead/signals"
)

func main() {
	withoutCore()
	os.Exit(cli.Run(signals.Context(), environment()))
}
