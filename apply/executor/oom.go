package executor

import (
	"os"
	"strconv"
	"strings"
)

// capSysResource is the capability, by number, that lowering an oom_score_adj takes.
const capSysResource = 24

// lowestOOMScore is the lowest oom_score_adj that containers can have on this machine. Where root lacks the
// capability to lower it, because the machine itself is a container, the engine lacks it too and would fail
// to start such a container; then it is what this process has.
func lowestOOMScore(status, own string) int {
	for line := range strings.Lines(status) {
		if hex, ok := strings.CutPrefix(line, "CapEff:"); ok {
			if caps, err := strconv.ParseUint(strings.TrimSpace(hex), 16, 64); err == nil && caps>>capSysResource&1 == 0 {
				score, _ := strconv.Atoi(strings.TrimSpace(own)) // 0 is what a process begins with
				return score
			}
		}
	}
	return -1000
}

func readLowestOOMScore() int {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return -1000
	}
	own, _ := os.ReadFile("/proc/self/oom_score_adj")
	return lowestOOMScore(string(status), string(own))
}
