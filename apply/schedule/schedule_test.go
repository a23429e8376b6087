package schedule

import (
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-dev/fairlead/plan"
)

const zone = "label:" + corev1.LabelTopologyZone + "="

func TestPlace(t *testing.T) {
	three := []Node{aNode("a", "cpu=4 memory=8Gi"), aNode("b", "cpu=4 memory=8Gi"), aNode("c", "cpu=4 memory=8Gi")}
	zones := []Node{
		aNode("a", "cpu=8 memory=16Gi "+zone+"x"), aNode("b", "cpu=8 memory=16Gi "+zone+"x"), aNode("c", "cpu=8 memory=16Gi "+zone+"y"),
		aNode("d", "cpu=8 memory=16Gi"),
	}
	for _, c := range []struct {
		name    string
		nodes   []Node
		profile Profile
		there   map[plan.NodeID][]*plan.Pod
		pods    []*plan.Pod
		want    string
	}{
		{name: "no nodes", pods: several(t, 1, "web", "", "", ""), want: "there are no nodes"},
		{name: "the lower name among equal nodes, and apart", nodes: three, pods: several(t, 4, "web", "100m", "", ""), want: "a; b; c; a"},
		{name: "packed", nodes: three, profile: Packed, pods: several(t, 5, "web", "1", "2Gi", ""), want: "a; a; a; a; b"},
		{name: "zones are filled evenly", nodes: zones[:3], pods: several(t, 4, "web", "1", "", ""), want: "a; c; b; c"},

		{name: "too little memory", nodes: append(slices.Clone(three), aNode("g", "cpu=4 memory=99Gi taint:gpu:NoSchedule"), aNode("h", "cpu=4 memory=99Gi taint:gpu:NoSchedule")),
			pods: several(t, 1, "big", "1", "9Gi", ""), want: "0/5 nodes fit: 3 insufficient memory (9Gi wanted, at most 8Gi free), 2 taint gpu"},
		{name: "processors run out", nodes: three[:1], pods: several(t, 3, "web", "1500m", "", ""),
			want: "a; a; 0/1 nodes fit: 1 insufficient cpu (1500m wanted, at most 1 free)"},
		{name: "the number of pods", nodes: []Node{aNode("a", "cpu=4 memory=8Gi pods=1")}, pods: several(t, 2, "web", "", "", ""), want: "a; 0/1 nodes fit: 1 full: no more pods allowed"},
		{name: "an extended resource", nodes: []Node{aNode("a", "cpu=4"), aNode("b", "cpu=4 example.com/gpu=1")},
			pods: several(t, 2, "ai", "", "", "containers: [{name: m, resources: {requests: {example.com/gpu: 1}}}]"),
			want: "b; 0/2 nodes fit: 2 insufficient example.com/gpu (1 wanted, at most 0 free)"},
		{name: "a resource that nobody has", nodes: three[:1], pods: several(t, 1, "ai", "", "", "containers: [{name: m, resources: {requests: {example.com/tpu: 2}}}]"),
			want: "0/1 nodes fit: 1 without example.com/tpu (2 wanted)"},
		{name: "init containers count when they need more, sidecars always", nodes: []Node{aNode("a", "cpu=3")},
			pods: []*plan.Pod{
				aPod(t, "p", "one", "1", "", "initContainers: [{name: i, resources: {requests: {cpu: 2}}}]"),
				aPod(t, "q", "two", "1", "", "initContainers: [{name: s, restartPolicy: Always, resources: {requests: {cpu: 500m}}}]"),
			}, want: "a; 0/1 nodes fit: 1 insufficient cpu (1500m wanted, at most 1 free)"},

		{name: "nodeName", nodes: three, pods: several(t, 1, "web", "", "", "nodeName: b"), want: "b"},
		{name: "nodeName on a cordoned node", nodes: []Node{aNode("a", "cpu=4 cordoned")}, pods: several(t, 1, "web", "", "", "nodeName: a"), want: "a"},
		{name: "nodeName of no node", nodes: three, pods: several(t, 1, "web", "", "", "nodeName: z"), want: "0/3 nodes fit: 3 named another node"},
		{name: "cordoned", nodes: []Node{aNode("a", "cpu=4 cordoned")}, pods: several(t, 1, "web", "", "", ""), want: "0/1 nodes fit: 1 cordoned"},
		{name: "cordoned, and tolerated", nodes: []Node{aNode("a", "cpu=4 cordoned")},
			pods: several(t, 1, "web", "", "", "tolerations: [{key: node.kubernetes.io/unschedulable, operator: Exists}]"), want: "a"},
		{name: "nodeSelector", nodes: []Node{aNode("a", "cpu=4"), aNode("b", "cpu=4 label:disk=ssd")}, pods: several(t, 1, "db", "", "", "nodeSelector: {disk: ssd}"), want: "b"},
		{name: "nodeSelector that nothing has", nodes: three, pods: several(t, 1, "db", "", "", "nodeSelector: {disk: ssd}"),
			want: "0/3 nodes fit: 3 labels that nodeSelector or node affinity do not want"},
		{name: "required node affinity", nodes: []Node{aNode("a", "cpu=4 label:cores=4"), aNode("b", "cpu=4 label:cores=64")},
			pods: several(t, 1, "db", "", "", "affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: cores, operator: Gt, values: ['8']}]}]}}}"), want: "b"},
		{name: "preferred node affinity", nodes: []Node{aNode("a", "cpu=4"), aNode("b", "cpu=4 label:disk=ssd")},
			pods: several(t, 1, "db", "", "", "affinity: {nodeAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 1, preference: {matchExpressions: [{key: disk, operator: Exists}]}}]}}"), want: "b"},
		{name: "a taint with its value", nodes: []Node{aNode("a", "cpu=4 taint:team=red:NoExecute")}, pods: several(t, 1, "web", "", "", "tolerations: [{key: team, value: blue, effect: NoExecute}]"),
			want: "0/1 nodes fit: 1 taint team=red"},
		{name: "a taint that is only a wish", nodes: []Node{aNode("a", "cpu=4 taint:old:PreferNoSchedule"), aNode("b", "cpu=4")}, pods: several(t, 1, "web", "", "", ""), want: "b"},
		{name: "the node that has the image", nodes: []Node{aNode("a", "cpu=4"), aNode("b", "cpu=4 image:web=900")}, pods: several(t, 1, "web", "", "", ""), want: "b"},

		{name: "host ports", nodes: three[:2], pods: several(t, 3, "lb", "", "", "containers: [{name: m, ports: [{containerPort: 80, hostPort: 80}]}]"),
			want: "a; b; 0/2 nodes fit: 2 host port 80/TCP taken"},
		{name: "host ports by address and protocol", nodes: three[:1], pods: []*plan.Pod{
			aPod(t, "p", "p", "", "", "containers: [{name: m, ports: [{containerPort: 53, hostPort: 53, hostIP: 10.0.0.1}]}]"),
			aPod(t, "q", "q", "", "", "containers: [{name: m, ports: [{containerPort: 53, hostPort: 53, hostIP: 10.0.0.2}, {containerPort: 53, hostPort: 53, protocol: UDP}]}]"),
			aPod(t, "r", "r", "", "", "containers: [{name: m, ports: [{containerPort: 53, hostPort: 53}]}]"),
		}, want: "a; a; 0/1 nodes fit: 1 host port 53/TCP taken"},
		{name: "hostNetwork takes container ports", nodes: three[:1], pods: several(t, 2, "agent", "", "", "{hostNetwork: true, containers: [{name: m, ports: [{containerPort: 9100}]}]}"),
			want: "a; 0/1 nodes fit: 1 host port 9100/TCP taken"},

		{name: "one a node by anti-affinity", nodes: three, pods: several(t, 4, "db", "", "", antiAffinity("db", corev1.LabelHostname)),
			want: "a; b; c; 0/3 nodes fit: 3 anti-affinity of pods that are there"},
		{name: "anti-affinity of what is there", nodes: three[:2], there: map[plan.NodeID][]*plan.Pod{"a": several(t, 1, "db", "", "", antiAffinity("web", corev1.LabelHostname))},
			pods: several(t, 2, "web", "", "", ""), want: "b; b"},
		{name: "anti-affinity by zone", nodes: zones[:3], there: map[plan.NodeID][]*plan.Pod{"a": several(t, 1, "db", "", "", "")},
			pods: several(t, 1, "cache", "", "", antiAffinity("db", corev1.LabelTopologyZone)), want: "c"},
		{name: "affinity goes where the other is", nodes: three, there: map[plan.NodeID][]*plan.Pod{"c": several(t, 1, "db", "", "", "")},
			pods: several(t, 2, "web", "", "", affinity("db", corev1.LabelHostname)), want: "c; c"},
		{name: "affinity to what is nowhere", nodes: three, pods: several(t, 1, "web", "", "", affinity("db", corev1.LabelHostname)), want: "0/3 nodes fit: 3 no pods there that affinity wants"},
		{name: "affinity to itself", nodes: three, pods: several(t, 3, "web", "", "", affinity("web", corev1.LabelHostname)), want: "a; a; a"},
		{name: "affinity by a label that a node lacks", nodes: zones[3:], pods: several(t, 1, "web", "", "", affinity("web", corev1.LabelTopologyZone)), want: "0/1 nodes fit: 1 no pods there that affinity wants"},
		{name: "preferred affinity", nodes: three, there: map[plan.NodeID][]*plan.Pod{"b": several(t, 1, "db", "", "", "")},
			pods: several(t, 1, "web", "", "", "affinity: {podAffinity: {preferredDuringSchedulingIgnoredDuringExecution: [{weight: 100, podAffinityTerm: {topologyKey: kubernetes.io/hostname, labelSelector: {matchLabels: {app: db}}}}]}}"), want: "b"},

		{name: "spread over zones", nodes: zones, pods: several(t, 5, "web", "", "", spreadOver(corev1.LabelTopologyZone, 1, "DoNotSchedule", "web")), want: "a; c; b; c; a"},
		{name: "spread that cannot be", nodes: []Node{aNode("a", "cpu=8 memory=16Gi "+zone+"x"), aNode("b", "cpu=1 memory=16Gi "+zone+"y")}, pods: several(t, 4, "web", "1", "", spreadOver(corev1.LabelTopologyZone, 1, "DoNotSchedule", "web")),
			want: "a; b; a; 0/2 nodes fit: 1 insufficient cpu (1 wanted, at most 0 free), 1 would be uneven over topology.kubernetes.io/zone (skew at most 1)"},
		{name: "spread as a wish", nodes: []Node{aNode("a", "cpu=8 memory=16Gi "+zone+"x"), aNode("b", "cpu=1 memory=16Gi "+zone+"y")}, pods: several(t, 4, "web", "1", "", spreadOver(corev1.LabelTopologyZone, 1, "ScheduleAnyway", "web")), want: "a; b; a; a"},
		{name: "fewer domains than wanted", nodes: zones[:2], pods: several(t, 2, "web", "", "", "topologySpreadConstraints: [{maxSkew: 1, minDomains: 2, topologyKey: topology.kubernetes.io/zone, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {app: web}}}]"),
			want: "a; 0/2 nodes fit: 2 would be uneven over topology.kubernetes.io/zone (skew at most 1)"},
		{name: "spread and a node without the label", nodes: zones[3:], pods: several(t, 1, "web", "", "", spreadOver(corev1.LabelTopologyZone, 1, "DoNotSchedule", "web")),
			want: "0/1 nodes fit: 1 without the label topology.kubernetes.io/zone that spread asks for"},

		{name: "scheduling gates", nodes: three, pods: several(t, 1, "web", "", "", "schedulingGates: [{name: example.com/quota}]"), want: "waits for its scheduling gates: example.com/quota"},
		{name: "the higher priority first", nodes: three[:1], pods: []*plan.Pod{
			aPod(t, "a-low", "low", "3", "", ""), aPod(t, "z-high", "high", "3", "", "priority: 10"),
		}, want: "0/1 nodes fit: 1 insufficient cpu (3 wanted, at most 1 free); a"},
		{name: "preemption takes the fewest and the lowest", nodes: three[:2], there: map[plan.NodeID][]*plan.Pod{
			"a": {aPod(t, "a1", "x", "2", "", "priority: 5"), aPod(t, "a2", "y", "2", "", "")}, "b": {aPod(t, "b1", "z", "3", "", "priority: 5")},
		}, pods: []*plan.Pod{aPod(t, "vip", "vip", "2", "", "priority: 9")}, want: "a, in place of shop/a2"},
		{name: "no preemption among equals, and none where it is not wanted", nodes: three[:1], there: map[plan.NodeID][]*plan.Pod{"a": {aPod(t, "a1", "x", "4", "", "priority: 9")}},
			pods: []*plan.Pod{aPod(t, "p", "p", "1", "", "priority: 9"), aPod(t, "q", "q", "1", "", "{priority: 99, preemptionPolicy: Never}")},
			want: "0/1 nodes fit: 1 insufficient cpu (1 wanted, at most 0 free); 0/1 nodes fit: 1 insufficient cpu (1 wanted, at most 0 free)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := New(c.nodes, Options{Profile: c.profile})
			for on, list := range c.there {
				for _, p := range list {
					if !b.Add(on, p, false) {
						t.Fatalf("%s cannot be on %s", p.Name, on)
					}
				}
			}
			if got := where(b.PlaceAll(c.pods)...); got != c.want {
				t.Errorf("placed %s\n   want %s", got, c.want)
			}
		})
	}
}

func antiAffinity(app, key string) string {
	return "affinity: {podAntiAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: " + key + ", labelSelector: {matchLabels: {app: " + app + "}}}]}}"
}

func affinity(app, key string) string {
	return "affinity: {podAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: " + key + ", labelSelector: {matchLabels: {app: " + app + "}}}]}}"
}

func spreadOver(key string, skew int, when, app string) string {
	return "topologySpreadConstraints: [{maxSkew: " + string(rune('0'+skew)) + ", topologyKey: " + key + ", whenUnsatisfiable: " + when + ", labelSelector: {matchLabels: {app: " + app + "}}}]"
}

func TestPreemptionRespectsBudgets(t *testing.T) {
	nodes := []Node{aNode("a", "cpu=1"), aNode("b", "cpu=1")}
	b := New(nodes, Options{Budgets: []Budget{{Namespace: "shop", Selects: func(l map[string]string) bool { return l["app"] == "db" }, Allowed: 0}}})
	b.Add("a", aPod(t, "db-0", "db", "1", "", ""), false)
	b.Add("b", aPod(t, "web-0", "web", "1", "", "priority: 3"), false)
	if got, want := b.Place(aPod(t, "vip", "vip", "1", "", "priority: 9")).String(), "b, in place of shop/web-0"; got != want {
		t.Errorf("placed %s, want %s", got, want)
	}
	// There is no other way the second time.
	if got, want := b.Place(aPod(t, "vip2", "vip", "1", "", "priority: 9")).String(), "a, in place of shop/db-0"; got != want {
		t.Errorf("placed %s, want %s", got, want)
	}
}

func TestAddAndRemove(t *testing.T) {
	b := New([]Node{aNode("a", "cpu=1"), aNode("a", "cpu=99")}, Options{})
	p := aPod(t, "p", "web", "1", "", "")
	if !b.Add("a", p, false) || b.Add("a", p, false) || b.Add("nowhere", aPod(t, "q", "web", "1", "", ""), false) {
		t.Error("a pod is added once, to a node that there is")
	}
	if got := b.Place(p); got.Node != "a" || b.On(p.PodKey) != "a" {
		t.Errorf("a pod that is there was placed: %s", got)
	}
	q := aPod(t, "q", "web", "1", "", "")
	if got := b.Place(q); got.Node != "" {
		t.Errorf("placed %s on a node that is full", got)
	}
	if !b.Remove(p.PodKey) || b.Remove(p.PodKey) || b.On(p.PodKey) != "" {
		t.Error("a pod is removed once")
	}
	if got := b.Place(q); got.Node != "a" {
		t.Errorf("a node with room: %s", got)
	}
}

// TestLeavingPodsOnlyTakeRoom: the room of a pod that is told to stop is not free yet, but nothing keeps away from it.
func TestLeavingPodsOnlyTakeRoom(t *testing.T) {
	b := New([]Node{aNode("a", "cpu=2")}, Options{})
	b.Add("a", aPod(t, "db-0", "db", "1", "", antiAffinity("db", corev1.LabelHostname)), true)
	if got := b.Place(aPod(t, "db-1", "db", "1", "", antiAffinity("db", corev1.LabelHostname))); got.Node != "a" {
		t.Errorf("placed %s", got)
	}
	if got, want := b.Place(aPod(t, "web", "web", "1", "", "")).String(), "0/1 nodes fit: 1 insufficient cpu (1 wanted, at most 0 free)"; got != want {
		t.Errorf("placed %s, want %s", got, want)
	}
}
