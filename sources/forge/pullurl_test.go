package forge

import "testing"

func TestParsePullRequestURL(t *testing.T) {
	for in, want := range map[string]struct {
		repository string
		number     int
	}{
		"https://github.com/team/shop/pull/7":                                             {"https://github.com/team/shop", 7},
		"https://github.com/team/shop/pull/7/files?w=1":                                   {"https://github.com/team/shop", 7},
		"http://git.example.org:3000/team/shop/pulls/12":                                  {"http://git.example.org:3000/team/shop", 12},
		"https://gitlab.com/group/sub/shop/-/merge_requests/3/diffs":                      {"https://gitlab.com/group/sub/shop", 3},
		"https://bitbucket.org/team/shop/pull-requests/9":                                 {"https://bitbucket.org/team/shop", 9},
		"https://bitbucket.example.org/projects/TEAM/repos/shop/pull-requests/9/overview": {"https://bitbucket.example.org/projects/TEAM/repos/shop", 9},
		"https://dev.azure.com/org/project/_git/shop/pullrequest/5":                       {"https://dev.azure.com/org/project/_git/shop", 5},
		"https://github.com/team/pull/pull/1":                                             {"https://github.com/team/pull", 1},
	} {
		repository, number, ok := ParsePullRequestURL(in)
		if !ok || repository != want.repository || number != want.number {
			t.Errorf("%s is pull request %d of %s, %t", in, number, repository, ok)
		}
	}
	for _, in := range []string{"", "https://github.com/team/shop", "https://github.com/team/shop/pull/0", "git@github.com:team/shop/pull/1", "https:///pull/1", "https://github.com/team/shop/pull/x"} {
		if repository, number, ok := ParsePullRequestURL(in); ok {
			t.Errorf("%s is pull request %d of %s", in, number, repository)
		}
	}
}
