// Command fairlead keeps Docker hosts running true to Git.
package main

import (
	"os"

	"github.com/fairlead-dev/fairlead/daemon/cli"
)

func main() {
	os.Exit(cli.Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
