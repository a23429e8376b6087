package probes

import "testing"

// TestHealthStatus holds what is read out of answers, also of such as a hostile pod could give.
func TestHealthStatus(t *testing.T) {
	frame := func(msg string) string { return "\x00\x00\x00\x00" + string(rune(len(msg))) + msg }
	for _, c := range []struct {
		name, body string
		want       servingStatus
		ok         bool
	}{
		{"serving", frame("\x08\x01"), serving, true},
		{"not serving", frame("\x08\x02"), 2, true},
		{"unknown is the default", frame(""), 0, true},
		{"last one counts", frame("\x08\x02\x08\x01"), serving, true},
		{"unknown fields", frame("\x12\x02ab\x08\x01\x19\x00\x00\x00\x00\x00\x00\x00\x00\x25\x00\x00\x00\x00"), serving, true},
		{"nothing", "", 0, false},
		{"compressed", "\x01\x00\x00\x00\x02\x08\x01", 0, false},
		{"longer than it says", "\x00\x00\x00\x00\x01\x08\x01", 0, false},
		{"shorter than it says", "\x00\xff\xff\xff\xff\x08\x01", 0, false},
		{"half a field", frame("\x08"), 0, false},
		{"endless varint", frame("\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), 0, false},
		{"string beyond the end", frame("\x12\xff\xff\xff\xff\x0fa"), 0, false},
		{"group", frame("\x0b\x08\x01"), 0, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got, ok := healthStatus([]byte(c.body)); got != c.want || ok != c.ok {
				t.Errorf("healthStatus = %v, %v, want %v, %v", got, ok, c.want, c.ok)
			}
		})
	}
}
