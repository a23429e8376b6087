package plan

import (
	"slices"
	"strconv"
)

// Keep returns a with the fields that the rules ignore as they are in was: a change of them is not applied
// when the rest of the object is.
func (a Applied) Keep(was Applied, rules []IgnoreRule) Applied {
	ignored := pointersFor(rules, a.Ref)
	if ignored == nil {
		return a
	}
	before, now := parse(was.Written), parse(a.Written)
	if before == nil || now == nil {
		return a
	}
	a.Written = encode(keep(ignored, before, now))
	return a
}

// keep returns now with what is ignored as it is in before.
func keep(ignored pointers, before, now any) any {
	if ignored.here() {
		return before
	}
	switch now := now.(type) {
	case map[string]any:
		before, same := before.(map[string]any)
		if !same {
			return now
		}
		for token, below := range ignored {
			was, had := before[token]
			is, has := now[token]
			switch {
			case below.here() && had:
				now[token] = was
			case below.here():
				delete(now, token)
			case had && has:
				now[token] = keep(below, was, is)
			}
		}
		return now
	case []any:
		before, same := before.([]any)
		if !same {
			return now
		}
		now = slices.Clone(now)
		for token, below := range ignored {
			if i, err := strconv.Atoi(token); err == nil && i >= 0 && i < len(now) && i < len(before) {
				now[i] = keep(below, before[i], now[i])
			}
		}
		return now
	}
	return now
}
