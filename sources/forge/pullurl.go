package forge

import (
	"net/url"
	"regexp"
	"strconv"
)

// pullPath matches the ends of the paths of pull requests: .../pull/7 on GitHub, .../pulls/7 on Gitea, .../-/merge_requests/7 on
// GitLab, .../pull-requests/7 on Bitbucket, .../pullrequest/7 on Azure DevOps, with whatever tab of it is shown.
var pullPath = regexp.MustCompile(`^(.+?)(?:/-)?/(?:pull|pulls|merge_requests|pull-requests|pullrequest)/([1-9][0-9]{0,8})(?:/.*)?$`)

// ParsePullRequestURL takes the URL of a pull request, as a browser shows it, apart into that of its repository and its
// number. It returns false for other URLs.
func ParsePullRequestURL(s string) (repository string, number int, ok bool) {
	u, err := url.Parse(s)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return "", 0, false
	}
	m := pullPath.FindStringSubmatch(u.EscapedPath())
	if m == nil {
		return "", 0, false
	}
	if number, err = strconv.Atoi(m[2]); err != nil {
		return "", 0, false
	}
	return u.Scheme + "://" + u.Host + m[1], number, true
}
