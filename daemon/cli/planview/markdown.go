package planview

import (
	"bytes"
	"fmt"
	"io"
	"strings"

	"github.com/fairlead-dev/fairlead/daemon/api"
)

// maxMarkdown is how much of the text form fits into a comment on every forge.
const maxMarkdown = 60_000

// Markdown writes the plans for a comment on a pull request: a line that sums up, and the text form
// folded below it.
func Markdown(w io.Writer, r api.PlanResult) error {
	var text bytes.Buffer
	if err := Text(&text, r, Options{}); err != nil {
		return err
	}
	body := strings.TrimSuffix(text.String(), "\n")
	before, last := "", body
	if i := strings.LastIndexByte(body, '\n'); i >= 0 {
		before, last = strings.TrimSpace(body[:i]), body[i+1:]
	}
	if _, err := fmt.Fprintf(w, "**%s**\n", last); err != nil || before == "" {
		return err
	}
	if len(before) > maxMarkdown {
		before = before[:strings.LastIndexByte(before[:maxMarkdown], '\n')+1] + "… cut here; `fairlead plan` shows all of it"
	}
	around := fence(before)
	_, err := fmt.Fprintf(w, "\n<details><summary>Plan</summary>\n\n%s\n%s\n%s\n\n</details>\n", around, before, around)
	return err
}

// fence returns more backticks than text has in a row, so that nothing in it ends the block.
func fence(text string) string {
	longest, run := 2, 0
	for _, r := range text {
		if r != '`' {
			run = 0
			continue
		}
		run++
		longest = max(longest, run)
	}
	return strings.Repeat("`", longest+1)
}
