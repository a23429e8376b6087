package schedule

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"github.com/fairlead-dev/fairlead/plan"
)

var (
	benchNodes = flag.Int("nodes", 5000, "nodes of the benchmarks")
	benchPods  = flag.Int("pods", 1_000_000, "pods of BenchmarkPlace; those of the other benchmarks follow from it")
)

// fleet is a number of machines of three sizes in three zones, some with a taint, some with a label.
func fleet(n int) []Node {
	nodes := make([]Node, n)
	for i := range nodes {
		words := fmt.Sprintf("%szone-%d pods=1000 ", zone, i%3)
		switch i % 10 {
		case 0, 1, 2, 3, 4, 5:
			words += "cpu=64 memory=256Gi label:disk=hdd"
		case 6, 7, 8:
			words += "cpu=96 memory=384Gi label:disk=ssd"
		default:
			words += "cpu=128 memory=512Gi label:disk=ssd taint:team=data:NoSchedule"
		}
		nodes[i] = aNode(fmt.Sprintf("node-%05d", i), words)
	}
	return nodes
}

// workloads are pods of 200 workloads in turn, as many of each as of any other, with what kinds of them ask for.
func workloads(b *testing.B, n int, kinds []string) []*plan.Pod {
	const many = 200
	r := rand.New(rand.NewPCG(1, 2))
	pods := make([]*plan.Pod, 0, n)
	for w := range many {
		owner := fmt.Sprintf("w%03d", w)
		spec := kinds[w%len(kinds)]
		if spec != "" {
			spec = fmt.Sprintf(spec, owner)
		}
		pods = append(pods, several(b, n/many, owner, fmt.Sprintf("%dm", 50+50*r.IntN(6)), fmt.Sprintf("%dMi", 64+64*r.IntN(8)), spec)...)
	}
	return pods
}

var (
	freely = []string{
		"", "", "nodeSelector: {disk: ssd} # %[1]s", "tolerations: [{key: team, operator: Exists}] # %[1]s",
		"affinity: {nodeAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 1, preference: {matchExpressions: [{key: disk, operator: In, values: [ssd]}]}}]}} # %[1]s",
	}
	spreadAndApart = []string{
		"topologySpreadConstraints: [{maxSkew: 1, topologyKey: topology.kubernetes.io/zone, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {app: %[1]s}}}]",
		"affinity: {podAntiAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: kubernetes.io/hostname, labelSelector: {matchLabels: {app: %[1]s}}}]}}",
	}
)

// BenchmarkPlace places pods of 200 workloads, one workload after the other, and in turns, on a fleet that is empty.
func BenchmarkPlace(b *testing.B) {
	for _, c := range []struct {
		name   string
		pods   int
		kinds  []string
		turns  bool
		packed Profile
	}{
		{"free", *benchPods, freely, false, Balanced},
		{"free/packed", *benchPods, freely, false, Packed},
		{"free/inturns", *benchPods / 10, freely, true, Balanced},
		{"spread", *benchPods / 10, spreadAndApart, false, Balanced},
	} {
		b.Run(c.name, func(b *testing.B) {
			nodes := fleet(*benchNodes)
			pods := workloads(b, c.pods, c.kinds)
			if c.turns {
				pods = inTurns(pods, 200)
			}
			for b.Loop() {
				before := heap()
				begun := time.Now()
				board := New(nodes, Options{Profile: c.packed})
				placed := 0
				for _, p := range pods {
					if board.Place(p).Node != "" {
						placed++
					}
				}
				took := time.Since(begun)
				if placed != len(pods) {
					b.Fatalf("%d of %d pods are placed", placed, len(pods))
				}
				b.ReportMetric(float64(placed)/took.Seconds(), "places/s")
				b.ReportMetric(float64(heap()-before)/float64(placed), "B/pod")
				b.ReportMetric(float64(board.nodesUsed()), "nodes-used")
				runtime.KeepAlive(board)
			}
		})
	}
}

// BenchmarkOneChange makes one pod leave and another one come on a fleet that is in use.
func BenchmarkOneChange(b *testing.B) {
	board := New(fleet(*benchNodes), Options{})
	pods := workloads(b, 150_000, freely)
	for _, p := range pods {
		board.Place(p)
	}
	i := 0
	for b.Loop() {
		p := pods[i*7919%len(pods)]
		board.Remove(p.PodKey)
		if board.Place(p).Node == "" {
			b.Fatal("it was there before")
		}
		i++
	}
}

// BenchmarkScan is the floor: every node is looked at for every pod, columns of numbers and nothing else.
func BenchmarkScan(b *testing.B) {
	n := *benchNodes
	cpu, memory, has := make([]int64, n), make([]int64, n), int64(96_000)
	for i := range cpu {
		cpu[i], memory[i] = has, has
	}
	for b.Loop() {
		best, at := int64(-1), 0
		for i := range cpu {
			if cpu[i] < 100 || memory[i] < 100 {
				continue
			}
			if s := cpu[i]*1000/has + memory[i]*1000/has; s > best {
				best, at = s, i
			}
		}
		cpu[at] -= 1
		memory[at] -= 1
	}
}

func inTurns(pods []*plan.Pod, many int) []*plan.Pod {
	out := make([]*plan.Pod, 0, len(pods))
	each := len(pods) / many
	for i := range each {
		for w := range many {
			out = append(out, pods[w*each+i])
		}
	}
	return out
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func (b *Board) nodesUsed() int {
	used := 0
	for i := range b.nodes {
		if len(b.nodes[i].pods) > 0 {
			used++
		}
	}
	return used
}
