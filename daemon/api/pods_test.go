package api

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-dev/fairlead/plan"
)

// TestPodStatus checks the words against those of kubectl's printer.
func TestPodStatus(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	always := corev1.ContainerRestartPolicyAlways
	sidecarSpec := &corev1.PodSpec{InitContainers: []corev1.Container{{Name: "proxy", RestartPolicy: &always}}}
	running := plan.ObservedContainer{Name: "web", State: plan.Running, Ready: true, StartedAt: at}
	type want struct {
		Status          string
		Ready, Total    int
		Restarts        int
		LastRestartSecs int
	}
	for _, tt := range []struct {
		name string
		pod  plan.ObservedPod
		want want
	}{
		{"running", plan.ObservedPod{Phase: "Running", Ready: true, Containers: []plan.ObservedContainer{running}}, want{"Running", 1, 1, 0, 0}},
		{"creating", plan.ObservedPod{Phase: "Pending", Containers: []plan.ObservedContainer{{Name: "web", State: plan.Waiting}}}, want{"ContainerCreating", 0, 1, 0, 0}},
		{"no container yet", plan.ObservedPod{Phase: "Pending"}, want{"Pending", 0, 0, 0, 0}},
		{"pull fails", plan.ObservedPod{Phase: "Pending", Containers: []plan.ObservedContainer{{Name: "web", State: plan.Waiting, Reason: "ImagePullBackOff"}}}, want{"ImagePullBackOff", 0, 1, 0, 0}},
		{"crash loop", plan.ObservedPod{Phase: "Running", Containers: []plan.ObservedContainer{
			{Name: "web", State: plan.Waiting, Reason: "CrashLoopBackOff", Restarts: 3, FinishedAt: at.Add(5 * time.Second)}, {Name: "b", State: plan.Running, Ready: true},
		}}, want{"CrashLoopBackOff", 1, 2, 3, 5}},
		{"out of memory", plan.ObservedPod{Phase: "Failed", Containers: []plan.ObservedContainer{{Name: "web", State: plan.Terminated, ExitCode: 137, OOM: true}}}, want{"OOMKilled", 0, 1, 0, 0}},
		{"killed", plan.ObservedPod{Phase: "Failed", Containers: []plan.ObservedContainer{{Name: "web", State: plan.Terminated, ExitCode: 137}}}, want{"Signal:9", 0, 1, 0, 0}},
		{"failed", plan.ObservedPod{Phase: "Failed", Containers: []plan.ObservedContainer{{Name: "web", State: plan.Terminated, ExitCode: 3, Reason: "Error"}}}, want{"Error", 0, 1, 0, 0}},
		{"failed without word", plan.ObservedPod{Phase: "Failed", Containers: []plan.ObservedContainer{{Name: "web", State: plan.Terminated, ExitCode: 3}}}, want{"ExitCode:3", 0, 1, 0, 0}},
		{"completed", plan.ObservedPod{Phase: "Succeeded", Containers: []plan.ObservedContainer{{Name: "web", State: plan.Terminated}}}, want{"Completed", 0, 1, 0, 0}},
		{"one completed, one ready", plan.ObservedPod{Phase: "Running", Ready: true, Containers: []plan.ObservedContainer{{Name: "a", State: plan.Terminated}, running}}, want{"Running", 1, 2, 0, 0}},
		{"one completed, pod not ready", plan.ObservedPod{Phase: "Running", Containers: []plan.ObservedContainer{{Name: "a", State: plan.Terminated}, running}}, want{"NotReady", 1, 2, 0, 0}},
		{"terminating", plan.ObservedPod{Phase: "Running", Terminating: true, Containers: []plan.ObservedContainer{running}}, want{"Terminating", 1, 1, 0, 0}},
		{"init running", plan.ObservedPod{Phase: "Pending", Containers: []plan.ObservedContainer{
			{Name: "i1", Init: true, State: plan.Terminated}, {Name: "i2", Init: true, State: plan.Running}, {Name: "web", State: plan.Waiting, Reason: "PodInitializing"},
		}}, want{"Init:1/2", 0, 1, 0, 0}},
		{"init crashes", plan.ObservedPod{Phase: "Pending", Containers: []plan.ObservedContainer{
			{Name: "i1", Init: true, State: plan.Waiting, Reason: "CrashLoopBackOff", Restarts: 2}, {Name: "web", State: plan.Waiting},
		}}, want{"Init:CrashLoopBackOff", 0, 1, 2, 0}},
		{"init failed for good", plan.ObservedPod{Phase: "Failed", Containers: []plan.ObservedContainer{
			{Name: "i1", Init: true, State: plan.Terminated, ExitCode: 1, Reason: "Error"}, {Name: "web", State: plan.Waiting, Reason: "PodInitializing"},
		}}, want{"Init:Error", 0, 1, 0, 0}},
		{"failed beside a sidecar that was ended", plan.ObservedPod{Phase: "Failed", Spec: sidecarSpec, Containers: []plan.ObservedContainer{
			{Name: "proxy", Init: true, State: plan.Terminated, ExitCode: 143, Reason: "Error"}, {Name: "web", State: plan.Terminated, ExitCode: 3},
		}}, want{"ExitCode:3", 0, 2, 0, 0}},
		{"too late before it began", plan.ObservedPod{Phase: "Failed", Reason: "DeadlineExceeded", Containers: []plan.ObservedContainer{
			{Name: "web", State: plan.Waiting, Reason: "ContainerCreating"},
		}}, want{"DeadlineExceeded", 0, 1, 0, 0}},
		{"evicted", plan.ObservedPod{Phase: "Failed", Reason: "Evicted", Containers: []plan.ObservedContainer{
			{Name: "web", State: plan.Terminated, ExitCode: 137, Reason: "Error"},
		}}, want{"Evicted", 0, 1, 0, 0}},
		{"sidecar counts", plan.ObservedPod{Phase: "Running", Ready: true, Spec: sidecarSpec, Containers: []plan.ObservedContainer{
			{Name: "proxy", Init: true, State: plan.Running, Ready: true, Started: true, Restarts: 1, StartedAt: at.Add(time.Second)}, running,
		}}, want{"Running", 2, 2, 1, 1}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := PodFrom("n1", tt.pod)
			got := want{p.Status, p.Ready, p.Total, p.Restarts, 0}
			if !p.LastRestart.IsZero() {
				got.LastRestartSecs = int(p.LastRestart.Sub(at) / time.Second)
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
		})
	}
}
