// Command fairlead keeps Docker hosts running true to Git.
package main

import (
	"context"
	"os"

	"github.com/fairlead-dev/fairlead/daemon/cli"
)

func main() {
	os.Exit(cli.Run(context.Background(), environment()))
}
