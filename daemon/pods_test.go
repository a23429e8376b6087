package daemon

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-dev/fairlead/plan"
)

// TestComparePods holds that pods that came, went or were published anew are told, and no others.
func TestComparePods(t *testing.T) {
	pod := func(name, uid string, restarts int) plan.ObservedPod {
		return plan.ObservedPod{PodKey: plan.PodKey{Namespace: "shop", Name: name}, UID: uid, Application: "shop", Containers: []plan.ObservedContainer{{Name: "main", Restarts: restarts}}}
	}
	before := []plan.ObservedPod{pod("a", "1", 0), pod("b", "2", 1), pod("c", "3", 0), pod("e", "5", 0)}
	now := slices.Clone(before)
	now[1] = pod("b", "2", 3)                               // it was restarted
	now[2] = pod("c", "4", 0)                               // another of that name
	now[3].Mounted = nil                                    // what is no change
	now = append(now[:3:3], pod("d", "6", 0), now[3])       // one that came
	now, before = now[:5], append(before, pod("f", "7", 0)) // one that went
	var got []string
	comparePods(before, now, func(before, now *plan.ObservedPod) {
		switch {
		case before == nil:
			got = append(got, "came "+now.Name+now.UID)
		case now == nil:
			got = append(got, "went "+before.Name+before.UID)
		default:
			got = append(got, fmt.Sprint(now.Name, now.UID, " restarted ", restarts(now)-restarts(before)))
		}
	})
	want := []string{"b2 restarted 2", "went c3", "came c4", "came d6", "went f7"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	now[0].Ready = true // in the same memory otherwise
	told := 0
	comparePods(before[:1], now[:1], func(_, _ *plan.ObservedPod) { told++ })
	if told != 1 {
		t.Error("a pod that became ready is not told")
	}
}
