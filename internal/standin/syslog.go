package standin

import (
	"bufio"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// SyslogMessage is a message of RFC 5424.
type SyslogMessage struct {
	Facility, Severity       int
	Time                     time.Time
	Host, App, Process, Kind string
	Data                     map[string]map[string]string // by id and name
	Message                  string
}

// maxSyslog is the longest message that is taken, in bytes.
const maxSyslog = 1 << 20

// ReadSyslog reads one message with its length before it, as RFC 5425 (section 4.3)
// has it. It is as strict as the grammar of RFC 5424, section 6, takes no control
// characters anywhere, and wants a message without a BOM to be ASCII.
func ReadSyslog(r *bufio.Reader) (*SyslogMessage, error) {
	length, err := r.ReadString(' ')
	if err != nil {
		return nil, err
	}
	n, err := strconv.Atoi(strings.TrimSuffix(length, " "))
	if err != nil || n <= 0 || n > maxSyslog || length[0] == '0' {
		return nil, fmt.Errorf("the length is %q", length)
	}
	text := make([]byte, n)
	if _, err := io.ReadFull(r, text); err != nil {
		return nil, err
	}
	return parseSyslog(string(text))
}

var (
	syslogHeader = regexp.MustCompile(`^<(0|[1-9][0-9]{0,2})>1 (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{1,6}(?:Z|[+-]\d\d:\d\d)) ([!-~]{1,255}) ([!-~]{1,48}) ([!-~]{1,128}) ([!-~]{1,32}) `)
	syslogID     = regexp.MustCompile(`^[!#-<>-\\^-~]{1,32}@[0-9]+(\.[0-9]+)*$`)
	syslogName   = regexp.MustCompile(`^[!#-<>-\\^-~]{1,32}$`)
)

func parseSyslog(text string) (*SyslogMessage, error) {
	for i := range len(text) {
		if text[i] < ' ' || text[i] == 0x7f {
			return nil, fmt.Errorf("byte %d is %#x", i, text[i])
		}
	}
	if !utf8.ValidString(text) {
		return nil, fmt.Errorf("it is not UTF-8: %.200q", text)
	}
	h := syslogHeader.FindStringSubmatch(text)
	if h == nil {
		return nil, fmt.Errorf("the header is none: %.200q", text)
	}
	priority, _ := strconv.Atoi(h[1])
	at, err := time.Parse(time.RFC3339Nano, h[2])
	if err != nil || priority > 191 {
		return nil, fmt.Errorf("the priority is %d, the time %q", priority, h[2])
	}
	m := &SyslogMessage{Facility: priority / 8, Severity: priority % 8, Time: at, Host: h[3], App: h[4], Process: h[5], Kind: h[6], Data: map[string]map[string]string{}}
	rest := text[len(h[0]):]
	if after, none := strings.CutPrefix(rest, "-"); none {
		rest = after
	}
	for strings.HasPrefix(rest, "[") {
		if rest, err = m.element(rest[1:]); err != nil {
			return nil, err
		}
	}
	if rest != "" && rest[0] != ' ' {
		return nil, fmt.Errorf("behind the structured data is %.50q", rest)
	}
	m.Message = strings.TrimPrefix(rest, " ")
	if i := strings.IndexFunc(m.Message, func(r rune) bool { return r > '~' }); i >= 0 {
		return nil, fmt.Errorf("the message has no BOM, and at byte %d no ASCII", i)
	}
	return m, nil
}

// element reads one of the structured data, behind its bracket.
func (m *SyslogMessage) element(rest string) (string, error) {
	end := strings.IndexAny(rest, " ]")
	if end < 0 || !syslogID.MatchString(rest[:end]) || m.Data[rest[:end]] != nil {
		return "", fmt.Errorf("the id of the structured data is wrong: %.50q", rest)
	}
	values := map[string]string{}
	m.Data[rest[:end]] = values
	rest = rest[end:]
	for strings.HasPrefix(rest, " ") {
		name, value, ok := strings.Cut(rest[1:], `="`)
		if _, again := values[name]; !ok || again || !syslogName.MatchString(name) {
			return "", fmt.Errorf("a name of the structured data is wrong: %.50q", rest)
		}
		var b strings.Builder
		i := 0
		for ; i < len(value) && value[i] != '"'; i++ {
			switch {
			case value[i] == ']':
				return "", fmt.Errorf("a bracket is not escaped: %.50q", value)
			case value[i] == '\\' && i+1 < len(value) && strings.IndexByte(`"\]`, value[i+1]) >= 0:
				i++
			}
			b.WriteByte(value[i])
		}
		if i == len(value) {
			return "", fmt.Errorf("a value does not end: %.50q", value)
		}
		values[name], rest = b.String(), value[i+1:]
	}
	after, ok := strings.CutPrefix(rest, "]")
	if !ok {
		return "", fmt.Errorf("the structured data does not end: %.50q", rest)
	}
	return after, nil
}
