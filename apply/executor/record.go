package executor

import (
	"bytes"
	"compress/flate"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/object"
)

// The record of a pod is kept in a label of its sandbox: all that is needed to take care of the pod again.
// It holds neither content nor digests of ConfigMaps and Secrets: the spec names them.

// record is the form of a plan.Pod in the label. Application, owner and template are labels of their own
// too, but only together are they the pod.
type record struct {
	plan.PodKey
	Application    string            `json:"application,omitempty"`
	SourceRevision string            `json:"revision,omitempty"`
	Owner          object.Ref        `json:"owner"`
	Template       string            `json:"template,omitempty"`
	Labels         map[string]string `json:"labels,omitempty"`
	Annotations    map[string]string `json:"annotations,omitempty"`
	Spec           *corev1.PodSpec   `json:"spec"`
	Index          int               `json:"index"`
}

const (
	// plainRecord and packedRecord begin a record: JSON as it is, or compressed where that is shorter to keep.
	plainRecord  = "1 "
	packedRecord = "1z "
	// packFrom is the length from which a record is compressed.
	packFrom = 2 << 10
	// maxRecord bounds what a record may unpack to.
	maxRecord = 16 << 20
)

// encodeRecord returns what decodeRecord makes the pod from again, all but its Configs.
func encodeRecord(pod *plan.Pod) (string, error) {
	r := record{
		PodKey: pod.PodKey, Application: pod.Application, SourceRevision: pod.SourceRevision, Owner: pod.Owner, Template: pod.Template,
		Labels: pod.Labels, Annotations: pod.Annotations, Spec: pod.Spec, Index: pod.Index,
	}
	data, err := json.Marshal(r)
	if err != nil {
		return "", fmt.Errorf("record of pod %s: %w", pod.PodKey, err)
	}
	if len(data) < packFrom {
		return plainRecord + string(data), nil
	}
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, flate.DefaultCompression)
	if err == nil {
		_, err = w.Write(data)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		return "", fmt.Errorf("record of pod %s: %w", pod.PodKey, err)
	}
	return packedRecord + base64.RawStdEncoding.EncodeToString(b.Bytes()), nil
}

// decodeRecord returns the pod of a record, without Configs.
func decodeRecord(s string) (*plan.Pod, error) {
	data, err := unpackRecord(s)
	if err != nil {
		return nil, fmt.Errorf("record of a pod: %w", err)
	}
	var r record
	if err := json.Unmarshal(data, &r); err != nil {
		return nil, fmt.Errorf("record of a pod: %w", err)
	}
	if r.Name == "" || r.Namespace == "" || r.Spec == nil {
		return nil, errors.New("record of a pod: it has no name, namespace or spec")
	}
	return &plan.Pod{
		PodKey: r.PodKey, Application: r.Application, SourceRevision: r.SourceRevision, Owner: r.Owner, Template: r.Template,
		Labels: r.Labels, Annotations: r.Annotations, Spec: r.Spec, Index: r.Index,
	}, nil
}

func unpackRecord(s string) ([]byte, error) {
	if plain, ok := strings.CutPrefix(s, plainRecord); ok {
		return []byte(plain), nil
	}
	packed, ok := strings.CutPrefix(s, packedRecord)
	if !ok {
		return nil, errors.New("its form is unknown to this version of fairlead")
	}
	r := flate.NewReader(base64.NewDecoder(base64.RawStdEncoding, strings.NewReader(packed)))
	data, err := io.ReadAll(io.LimitReader(r, maxRecord+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxRecord {
		return nil, fmt.Errorf("it has more than %d bytes", maxRecord)
	}
	return data, nil
}
