package decode

import (
	"bytes"
	"encoding/json"
)

// Canonical returns v as JSON with sorted keys and no insignificant space. v holds only what JSON can say.
func Canonical(v any) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		// Only values that cannot come out of Value (channels, functions, NaN) get here.
		panic("decode: value is not JSON: " + err.Error())
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}
