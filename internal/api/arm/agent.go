package arm

import (
	"net/http"
	"strings"
)

// maxAgent is enough for what clients call themselves: az writes some 150 bytes.
const maxAgent = 256

// Agent is what the client calls itself, as it may stand in a log: printable ASCII, and not more than maxAgent of it.
func Agent(r *http.Request) string {
	agent := r.UserAgent()
	agent = agent[:min(len(agent), maxAgent)]
	return strings.Map(func(c rune) rune {
		if c < ' ' || c > '~' {
			return '?'
		}
		return c
	}, agent)
}
