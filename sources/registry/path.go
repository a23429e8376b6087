package registry

import (
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
)

// Path is the path of an image's repository, without the registry: library/nginx for nginx. What is no image is its own
// path.
func Path(image string) string {
	r, err := name.NewRepository(strings.ToLower(image), name.WeakValidation)
	if err != nil {
		return image
	}
	return r.RepositoryStr()
}
