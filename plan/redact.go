package plan

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"strconv"
	"strings"

	"github.com/fairlead-dev/fairlead/render/object"
)

// RedactApplied returns what the inventory keeps of an object. The values of a Secret are replaced by
// digests keyed with digestKey, so that a changed value shows as changed and no value can be guessed from
// it; its stringData is merged into data, as an API server does. So are the values of Hidden fields of other objects. Copies of the whole object in annotations
// (kubectl's last-applied-configuration) are left out. Everything else is kept as it was written.
func RedactApplied(o object.Object, digestKey []byte) Applied {
	return Applied{Ref: o.Ref, APIVersion: o.APIVersion, Hash: appliedHash(o, digestKey), Written: redact(o.Ref, o.Written, o.Hidden, digestKey)}
}

// appliedHash is the Hash of the object's inventory entry: the object's own, and for a Secret, or what has hidden fields, a keyed
// one, because short values could be guessed from a hash that anybody can make.
func appliedHash(o object.Object, digestKey []byte) string {
	if !isSecret(o.Ref) && len(o.Hidden) == 0 {
		return o.Hash
	}
	return digest(digestKey, "object", []byte(o.Hash))
}

// digestPrefix marks the digests that stand for values of Secrets.
const digestPrefix = "hmac-sha256:"

// digest returns 16 bytes of the HMAC-SHA256 of value, in hexadecimal. Equal values in different places
// have different digests.
func digest(key []byte, place string, value []byte) string {
	h := hmac.New(sha256.New, key)
	var n [8]byte
	binary.BigEndian.PutUint64(n[:], uint64(len(place)))
	h.Write(n[:])
	h.Write([]byte(place))
	h.Write(value)
	return digestPrefix + hex.EncodeToString(h.Sum(nil)[:16])
}

func isSecret(r object.Ref) bool { return r.Kind == "Secret" && r.Group == "" }

// copies are annotations that hold the whole object once more, values of Secrets included.
var copies = [...]string{"kubectl.kubernetes.io/last-applied-configuration", "objectset.rio.cattle.io/applied"}

// redact returns a manifest as the inventory keeps it.
func redact(ref object.Ref, written []byte, hidden []string, key []byte) []byte {
	if !isSecret(ref) && len(hidden) == 0 && !bytes.Contains(written, []byte(copies[0])) && !bytes.Contains(written, []byte(copies[1])) {
		return written
	}
	v, ok := parse(written).(map[string]any)
	if !ok {
		if isSecret(ref) {
			return nil
		}
		return written
	}
	if meta, ok := v["metadata"].(map[string]any); ok {
		if notes, ok := meta["annotations"].(map[string]any); ok {
			for _, c := range copies {
				delete(notes, c)
			}
			if len(notes) == 0 {
				delete(meta, "annotations")
			}
		}
	}
	if isSecret(ref) {
		redactValues(ref, v, key)
	}
	for _, pointer := range hidden {
		hideField(v, strings.Split(pointer, "/")[1:], func(value any) any { return digest(key, ref.String()+"\x00", encode(value)) })
	}
	return encode(v)
}

// hideField replaces the value at a path of a document, if there is one.
func hideField(v any, at []string, by func(any) any) {
	if len(at) == 0 {
		return
	}
	name := strings.NewReplacer("~1", "/", "~0", "~").Replace(at[0])
	last := len(at) == 1
	switch v := v.(type) {
	case map[string]any:
		if e, ok := v[name]; ok && last {
			v[name] = by(e)
		} else if ok {
			hideField(e, at[1:], by)
		}
	case []any:
		if i, err := strconv.Atoi(name); err == nil && i >= 0 && i < len(v) && last {
			v[i] = by(v[i])
		} else if err == nil && i >= 0 && i < len(v) {
			hideField(v[i], at[1:], by)
		}
	}
}

// WithoutHidden returns a manifest with "(sensitive)" in the place of the values of hidden fields.
func WithoutHidden(written []byte, hidden []string) []byte {
	v := parse(written)
	for _, pointer := range hidden {
		hideField(v, strings.Split(pointer, "/")[1:], func(any) any { return "(sensitive)" })
	}
	return encode(v)
}

// isDigest reports whether a value, as JSON, is a digest in place of one that is hidden.
func isDigest(value string) bool {
	rest, ok := strings.CutPrefix(value, `"`+digestPrefix)
	return ok && len(rest) == 33
}

// redactValues replaces all values of a Secret in place.
func redactValues(ref object.Ref, v map[string]any, key []byte) {
	out := map[string]any{}
	for _, field := range [...]string{"data", "stringData"} {
		values, has := v[field]
		delete(v, field)
		m, ok := values.(map[string]any)
		if !ok {
			if has && values != nil {
				out["("+field+")"] = digest(key, ref.String()+"\x00"+field, encode(values))
			}
			continue
		}
		for k, value := range m {
			raw, ok := secretValue(field, value)
			if !ok {
				raw = encode(value)
			}
			if d, is := value.(string); is && field == "data" && strings.HasPrefix(d, digestPrefix) {
				out[k] = d // a digest already: base64 has no hyphen
				continue
			}
			out[k] = digest(key, ref.String()+"\x00"+k, raw)
		}
	}
	if len(out) > 0 {
		v["data"] = out
	}
}

// secretValue returns the bytes that a value of data or stringData means.
func secretValue(field string, value any) ([]byte, bool) {
	s, ok := value.(string)
	if !ok {
		return nil, false
	}
	if field == "stringData" {
		return []byte(s), true
	}
	// YAML folds long values into lines; base64 ignores those.
	b, err := base64.StdEncoding.DecodeString(strings.NewReplacer("\n", "", "\r", "").Replace(s))
	return b, err == nil
}

// parse reads a JSON document, numbers as they were written. What is not JSON is nil.
func parse(b []byte) any {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var v any
	if d.Decode(&v) != nil {
		return nil
	}
	return v
}

// encode returns v as canonical JSON: sorted keys, no insignificant space.
func encode(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}
