package forge

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
)

// change sets a status with post when it is not as wanted already. same maps a status to what the service would
// return of it.
func change(ctx context.Context, f Forge, repo, commit string, s Status, same func(Status) Status, post func(Status) error) (bool, error) {
	s.Description = oneLine(s.Description, f.Limits().Description)
	s = same(s)
	have, ok, err := f.Status(ctx, repo, commit, s.Context)
	if err != nil {
		return false, err
	}
	if ok && have == s {
		return false, nil
	}
	return true, post(s)
}

// statusKey is a context as a key of at most limit characters: as it is, or a digest of it.
func statusKey(name string, limit int) string {
	if len(name) <= limit {
		return name
	}
	sum := sha256.Sum256([]byte(name))
	return hex.EncodeToString(sum[:])[:min(limit, 40)]
}

// withoutError maps Error, which some services do not have, to Failure.
func withoutError(s Status) Status {
	if s.State == Error {
		s.State = Failure
	}
	return s
}
