package images

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"text/template"
)

// DefaultMessage is the message of a commit without a template.
const DefaultMessage = "Update from image update automation"

const maxCommitMessage = 64 << 10 // bytes

// TemplateChange is a change as templates see it.
type TemplateChange struct{ OldValue, NewValue, Setter string }

// changed is what templates see of all changes.
type changed struct {
	// Changes are all, FileChanges those of each file.
	Changes     []TemplateChange
	FileChanges map[string][]TemplateChange
}

type templateData struct {
	AutomationObject string
	Changed          changed
	Values           map[string]string
}

// CommitMessage returns the message of a commit with changes, from the automation's template.
func (a Automation) CommitMessage(changes []Change) (string, error) {
	text := a.Message
	if strings.TrimSpace(text) == "" {
		return DefaultMessage, nil
	}
	t, err := template.New("messageTemplate").Option("missingkey=error").Funcs(template.FuncMap{
		"upper": strings.ToUpper, "lower": strings.ToLower, "trim": strings.TrimSpace,
		"replace":   func(old, with, s string) string { return strings.ReplaceAll(s, old, with) },
		"trunc":     func(n int, s string) string { return s[:min(max(n, 0), len(s))] },
		"contains":  func(part, s string) bool { return strings.Contains(s, part) },
		"hasPrefix": func(part, s string) bool { return strings.HasPrefix(s, part) },
		"hasSuffix": func(part, s string) bool { return strings.HasSuffix(s, part) },
	}).Parse(text)
	if err != nil {
		return "", err
	}
	data := templateData{AutomationObject: a.Ref.Namespace + "/" + a.Ref.Name, Values: a.MessageValues, Changed: changed{FileChanges: map[string][]TemplateChange{}}}
	for _, c := range changes {
		x := TemplateChange{c.Old, c.New, c.Setter}
		data.Changed.Changes = append(data.Changed.Changes, x)
		data.Changed.FileChanges[c.File] = append(data.Changed.FileChanges[c.File], x)
	}
	out := &bounded{left: maxCommitMessage}
	if err := t.Execute(out, data); err != nil {
		return "", err
	}
	if strings.TrimSpace(out.String()) == "" {
		return DefaultMessage, nil
	}
	return out.String(), nil
}

// CheckMessage says what is wrong with a template.
func (a Automation) CheckMessage() error {
	_, err := a.CommitMessage([]Change{{File: "a.yaml", Setter: "a:b", Old: "a:1", New: "a:2"}})
	if err != nil {
		return fmt.Errorf("it cannot be filled in: %w", err)
	}
	return nil
}

// bounded takes so many bytes.
type bounded struct {
	bytes.Buffer
	left int
}

func (b *bounded) Write(p []byte) (int, error) {
	if b.left -= len(p); b.left < 0 {
		return 0, errors.New("the message is too long")
	}
	return b.Buffer.Write(p)
}
