package e2e

import (
	"fmt"
	"os"
	"sync/atomic"
)

// subnets counts the subnets that this process has given out.
var subnets atomic.Int32

// subnet returns a subnet for pods that no other test of this process has, and hardly one of another process
// that runs at the same time.
func subnet() string {
	n := int(subnets.Add(1)) - 1
	return fmt.Sprintf("10.%d.%d.0/24", 200+os.Getpid()%50, n%256)
}
