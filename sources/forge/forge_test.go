package forge_test

import (
	"testing"

	"github.com/fairlead-dev/fairlead/sources/forge"
	"github.com/fairlead-dev/fairlead/sources/forge/forgetest"
)

// TestContract holds the contract against the fakes. The real Gitea passes it too, in e2e.
func TestContract(t *testing.T) {
	for _, kind := range []forge.Kind{forge.GitHub, forge.GitLab, forge.Bitbucket, forge.BitbucketServer, forge.AzureDevOps} {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			forgetest.Run(t, func(t *testing.T) forgetest.Host { return forgetest.NewFake(t, kind) })
		})
	}
}
