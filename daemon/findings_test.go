package daemon

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-dev/fairlead/daemon/api"
)

// TestUnsupportedFieldsAreFoundWhereTheyAreWritten holds that the findings about fields carry the line of the field:
// in a manifest, and in the patch that wrote it.
func TestUnsupportedFieldsAreFoundWhereTheyAreWritten(t *testing.T) {
	h := newHost(t)
	h.declare("shop")
	h.file("shop/kustomization.yaml", "resources: [web.yaml]\npatches: [{path: slow.yaml}]\n")
	h.file("shop/web.yaml", `apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  nodeSelector:
    disk: fast
  containers:
  - name: side
    image: web:1
  - name: web
    image: web:1
    resources:
      limits:
        cpu: 100m
        nvidia.com/gpu: 1
      requests:
        ephemeral-storage: 1Gi
`)
	h.file("shop/slow.yaml", `apiVersion: v1
kind: Pod
metadata: {name: web}
spec:
  containers:
  - name: web
    volumeDevices:
    - {name: disk, devicePath: /dev/disk}
  volumes:
  - name: disk
    ephemeral: {volumeClaimTemplate: {spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}}
`)
	s := h.open(Validate)
	v, err := s.Validate(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	h.stop(s)
	var have []string
	for _, d := range v.Applications[0].Diags.Sorted() {
		have = append(have, d.Origin.String()+" "+string(d.Severity)+" "+d.Field)
	}
	want := []string{
		"slow.yaml:7 error spec.containers[web].volumeDevices",
		"slow.yaml:11 error spec.volumes[disk].ephemeral",
		"web.yaml:5 warning spec.nodeSelector",
		"web.yaml:15 error spec.containers[web].resources.limits[nvidia.com/gpu]",
		"web.yaml:17 warning spec.containers[web].resources.requests.ephemeral-storage",
	}
	if d := cmp.Diff(want, have); d != "" {
		t.Errorf("-want +have:\n%s\n%s", d, strings.TrimSpace(v.Applications[0].Diags.String()))
	}
}

// TestPlansSayWhereTheirSourceIs is for people, who do not know the names of sources that were made from locations.
func TestPlansSayWhereTheirSourceIs(t *testing.T) {
	h := newHost(t)
	h.declare("shop")
	h.file("shop/web.yaml", deployment("web", "web:1", 1))
	s := h.open(Run)
	h.state(s, "shop", "Healthy Applied")
	p, err := s.Plan(t.Context(), api.PlanRequest{}, nil)
	if err != nil || len(p.Applications) != 1 || p.Applications[0].Source != filepath.Join(h.dir, "shop") {
		t.Errorf("%v, %+v", err, p.Applications)
	}
	d, err := s.Down(t.Context(), api.DownRequest{DryRun: true}, nil)
	if err != nil || len(d.Applications) != 1 || d.Applications[0].Source != filepath.Join(h.dir, "shop") {
		t.Errorf("%v, %+v", err, d.Applications)
	}
}

// TestObjectsSayWhenTheyWereApplied is for the AGE of objects and the DURATION of Jobs.
func TestObjectsSayWhenTheyWereApplied(t *testing.T) {
	h := newHost(t)
	h.declare("shop")
	h.file("shop/job.yaml", `apiVersion: batch/v1
kind: Job
metadata: {name: once}
spec:
  template:
    spec: {restartPolicy: Never, containers: [{name: job, image: "job:1"}]}
`)
	before := time.Now()
	s := h.open(Run)
	h.state(s, "shop", "Healthy Applied")
	objects, err := s.Objects(t.Context(), api.Query{Kinds: []string{"Job"}})
	if err != nil || len(objects) != 1 {
		t.Fatal(objects, err)
	}
	o := objects[0]
	if o.Created.Before(before) || o.Created.After(time.Now()) || !o.Started.Equal(o.Created) || o.Finished.Before(o.Started) {
		t.Errorf("begun at %s: created %s, started %s, finished %s", before, o.Created, o.Started, o.Finished)
	}
}
