package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/fairlead-dev/fairlead/daemon/api"
	"github.com/fairlead-dev/fairlead/daemon/cli/planview"
)

// savedPlan is the content of a plan file.
type savedPlan struct {
	api.PlanResult
	// Source is what the command line named; nil for the applications of a daemon or a settings file.
	Source *planSource `json:"commandLine,omitempty"`
}

// planSource is the part of Settings that apply --plan needs to find the same application again. Secrets
// are not among them: Auth names files.
type planSource struct {
	Location         string `json:"location"`
	Name             string `json:"name,omitempty"`
	Path             string `json:"path,omitempty"`
	Ref              string `json:"ref,omitempty"`
	Namespace        string `json:"namespace,omitempty"`
	Prune            bool   `json:"prune"`
	AllowUnsupported bool   `json:"allowUnsupported,omitempty"`
	Auth             Auth   `json:"auth,omitzero"`
	// VerifyKeys and VerifyMode hold for who applies the plan as they did for who made it.
	VerifyKeys []string `json:"verifyKeys,omitempty"`
	VerifyMode string   `json:"verifyMode,omitempty"`
}

// savedSource returns what a plan file says of the command line.
func savedSource(s Settings) *planSource {
	if s.Location == "" {
		return nil
	}
	p := &planSource{s.Location, s.Name, s.Path, s.Ref, s.Namespace, s.Prune, s.AllowUnsupported, s.Auth, nil, s.VerifyMode}
	for _, file := range s.VerifyKeys {
		p.VerifyKeys = append(p.VerifyKeys, absolute(file))
	}
	if fi, err := os.Stat(p.Location); err == nil && fi.IsDir() {
		p.Location = absolute(p.Location)
	}
	for _, file := range []*string{&p.Auth.PasswordFile, &p.Auth.SSHKeyFile, &p.Auth.KnownHostsFile, &p.Auth.CAFile, &p.Auth.CertFile, &p.Auth.KeyFile} {
		*file = absolute(*file)
	}
	return p
}

// into gives s what the plan was made with.
func (p planSource) into(s *Settings) {
	s.Location, s.Name, s.Path, s.Ref, s.Namespace = p.Location, p.Name, p.Path, p.Ref, p.Namespace
	s.Prune, s.AllowUnsupported, s.Auth = p.Prune, p.AllowUnsupported, p.Auth
	s.VerifyKeys, s.VerifyMode = p.VerifyKeys, p.VerifyMode
}

// savePlan writes a plan in one go, readable for its owner only: names and images are nobody else's business.
func savePlan(path string, res api.PlanResult, from *planSource) error {
	var buf bytes.Buffer
	res.Format = api.PlanFormat
	if err := writeJSON(&buf, savedPlan{planview.Redacted(res), from}); err != nil {
		return fmt.Errorf("save the plan: %w", err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("save the plan: %w", err)
	}
	defer os.Remove(f.Name()) // nothing once it is renamed
	_, err = f.Write(buf.Bytes())
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("save the plan: %w", err)
	}
	return nil
}

// loadPlan reads a saved plan.
func loadPlan(path string) (savedPlan, error) {
	var res savedPlan
	b, err := os.ReadFile(path)
	if err != nil {
		return res, fmt.Errorf("read the plan: %w", err)
	}
	var head struct {
		Format string `json:"format"`
	}
	if err := json.Unmarshal(b, &head); err != nil || head.Format == "" {
		return res, fmt.Errorf("%s is not a saved plan; make one with `fairlead plan --out FILE`", path)
	}
	if head.Format != api.PlanFormat {
		return res, fmt.Errorf("%s is a plan of the format %s, and this fairlead reads %s; make a new one", path, head.Format, api.PlanFormat)
	}
	if err := json.Unmarshal(b, &res); err != nil {
		return res, fmt.Errorf("read the plan %s: %w", path, err)
	}
	if res.Failed() {
		return res, fmt.Errorf("the plan %s has errors and cannot be applied; mend them and make a new one", path)
	}
	return res, nil
}
