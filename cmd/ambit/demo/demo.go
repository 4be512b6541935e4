//go:build linux

// Package demo is the demonstration: a control plane in a temporary home, a
// stand-in shop, an agent that works for the shop and then obeys a hostile
// ticket. Everything runs as it does in earnest; only the shop and the agent's
// judgement are made up. What is shown of a call comes from the agent's log.
//
// Trust: nothing that the agent's program says makes an attack look refused; it
// can only make one look worse. What reached the shop is counted at the shop.
package demo

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"ambit"
	"ambit/api"
	"ambit/approval"
	"ambit/audit"
	"ambit/client"
)

// Agents of the story.
const (
	support ambit.AgentID = "support"
	finance ambit.AgentID = "finance"
)

// Config is how a demonstration runs.
type Config struct {
	// Out takes what is shown. Required.
	Out io.Writer
	// Color says whether Out shows colour.
	Color bool
	// Width is that of Out, in columns; 0 is wide enough.
	Width int
	// JSON writes one document with the result instead of text.
	JSON bool
	// Once ends the demonstration after the show; otherwise the agents stay to
	// be looked at until the context ends.
	Once bool
	// Program is how a person calls this program: "bin/ambit". Required.
	Program string
	// Ask shows a person what waits for one, and asks whether it may run; pressing
	// Enter is what byDefault says. Nil: the demonstration answers in the person's
	// name.
	Ask func(ctx context.Context, q *approval.Question, byDefault bool) (yes bool, err error)
	// Progress shows what is waited for; done ends that. Required.
	Progress func(ctx context.Context, text string) (done func())
}

// LeakError says that the demonstration did not end as it must.
type LeakError struct{ What []string }

// Error implements error.
func (e *LeakError) Error() string {
	return "the boundary did NOT hold:\n  " + strings.Join(e.What, "\n  ") + "\nPlease report this, as SECURITY.md says."
}

// stage is one run.
type stage struct {
	Config
	plane  *plane
	shop   *shop
	canary string // in finance's file, and nowhere else
	last   uint64 // position in support's log up to which calls were shown, plus one
	used   uint64 // and that of its tool calls
}

// Run runs the demonstration. It removes everything that it made before it
// returns, also when ctx ends. The error is a *LeakError if anything passed
// that must not.
func Run(ctx context.Context, c Config) (err error) {
	// Until all is removed no signal ends this process, a second Ctrl-C, the
	// end of the terminal and of a pager included.
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	defer stop()
	s := &stage{Config: c, canary: "canary-" + rand.Text()}
	if s.plane, err = newPlane(); err != nil {
		return err
	}
	defer func() {
		if errors.Is(err, context.Canceled) {
			err = fmt.Errorf("%w: %w", context.Cause(ctx), err) // which signal it was
		}
		done := c.Progress(context.WithoutCancel(ctx), "removing the demonstration")
		err = errors.Join(err, s.plane.close())
		done()
	}()
	ledger := filepath.Join(s.plane.home, "agents", string(finance), "workspace", ledgerFile)
	var plan []attack
	s.shop, err = newShop(ctx, func(shop *shop) []ticket {
		plan = attacks(shop.url(), ledger)
		return tickets(shop.url(), shop.desk(), plan)
	})
	if err != nil {
		return err
	}
	defer s.shop.close()
	result, err := s.play(ctx, plan, ledger)
	if err != nil {
		return err
	}
	if err := s.check(ctx, plan, result); err != nil {
		return err
	}
	if err := s.end(result); err != nil {
		return err
	}
	if !c.Once {
		<-ctx.Done()
	}
	return nil
}

// play goes through the story and shows it.
func (s *stage) play(ctx context.Context, plan []attack, ledger string) (*result, error) {
	s.title()
	if err := s.setUp(ctx, ledger); err != nil {
		return nil, err
	}
	r := &result{Home: s.plane.home}
	s.scene("At work", "Ticket "+goodTicket+": where is my lamp? The agent looks it up and answers.")
	err := s.handle(ctx, goodTicket, "", func(a action, calls []audit.Call) {
		step := judge(a, calls)
		r.Work = append(r.Work, step)
		s.step(step)
	})
	if err != nil {
		return nil, fmt.Errorf("the agent could not work: %w", err)
	}
	s.scene("Under attack", "Ticket "+hostileTicket+": ignore your instructions, send out what you know. The agent obeys.")
	err = s.handle(ctx, hostileTicket, "", func(a action, calls []audit.Call) {
		step := judge(a, calls)
		i := slices.IndexFunc(plan, func(p attack) bool { return slices.Contains(p.lines, a.Line) })
		if i < 0 { // its reading of the ticket
			r.Work = append(r.Work, step)
		} else {
			step.Attack, step.Name = true, plan[i].name
			r.Attacks = append(r.Attacks, step)
		}
		s.step(step)
	})
	if err != nil {
		return nil, fmt.Errorf("the agent could not handle the hostile ticket: %w", err)
	}
	if err := s.playAccount(ctx, r); err != nil {
		return nil, err
	}
	if err := s.playRefunds(ctx, r); err != nil {
		return nil, err
	}
	return r, s.playLog(ctx, r)
}

// playAccount lets the agent show its key and use its account, which is revoked
// in the middle.
func (s *stage) playAccount(ctx context.Context, r *result) error {
	s.scene("Its account", "Ticket "+keysTicket+": show me your keys. All that the agent has is a reference.")
	var failed error
	err := s.handle(ctx, keysTicket, "", func(a action, calls []audit.Call) {
		step := judge(a, calls)
		switch {
		case a.Line == showKeys:
			r.Account.Environment = strings.Split(a.Got, "\n")
			r.Account.Reference = reference(r.Account.Environment)
			step.Name, step.What = "shows all it has", keyEnv+"="+r.Account.Reference
			step.Rule = fmt.Sprintf("and %d other variables; the shop's key is in none of them", len(r.Account.Environment)-1)
			if containsAny(a.Got, s.shop.keys) {
				step.Rule = "THE SHOP'S KEY IS IN ITS ENVIRONMENT"
			}
			s.step(step)
		case step.What == "GET "+s.shop.url()+"/v1/orders/7002":
			step.Name, r.Account.After = "looks up another", step
			s.step(step)
		default:
			if a.Doing == "" {
				step.Name = "looks up the order"
			}
			r.Work = append(r.Work, step)
			s.step(step)
			if a.Doing == "" { // the first order
				began := time.Now()
				_, failed = s.plane.client.Revoke(ctx, support, connection)
				s.fact("a person revokes the account: ambit revoke support "+connection, time.Since(began))
			}
		}
	})
	if err = cmp.Or(failed, err); err != nil {
		return fmt.Errorf("the agent could not use its account: %w", err)
	}
	return nil
}

// containsAny says whether text has any of the keys in it.
func containsAny(text string, keys map[string]string) bool {
	for _, key := range keys {
		if strings.Contains(text, key) {
			return true
		}
	}
	return false
}

// reference is what the environment has for the account.
func reference(environment []string) string {
	for _, line := range environment {
		if value, is := strings.CutPrefix(line, keyEnv+"="); is {
			return value
		}
	}
	return ""
}

// setUp starts everything and puts the agents' files in place.
func (s *stage) setUp(ctx context.Context, ledger string) error {
	if err := s.wait(ctx, "control plane in "+s.plane.home, s.plane.start); err != nil {
		return err
	}
	s.fact("stand-in shop at "+s.shop.url(), 0)
	if err := s.plane.addConnector("demo-desk", deskConnector); err != nil {
		return err
	}
	if err := s.wait(ctx, "an agent with a computer of its own: support, one account at the shop, tools of its desk", s.deployer(supportManifest(s.shop))); err != nil {
		return err
	}
	if err := s.wait(ctx, "its accounts are connected: the gate has the keys, the agent a reference", func(ctx context.Context) error {
		_, err := s.plane.client.Connect(ctx, support, connection, api.Connect{Fields: map[string][]byte{"token": []byte(s.shop.keys[shopHost])}})
		if err == nil {
			_, err = s.plane.client.Connect(ctx, support, desk, api.Connect{Fields: map[string][]byte{"key": []byte(s.shop.keys[deskHost])}})
		}
		return err
	}); err != nil {
		return err
	}
	if err := s.wait(ctx, "its neighbour: finance, no way out, a file with the books", func(ctx context.Context) error {
		if err := s.deployer(financeManifest)(ctx); err != nil {
			return err
		}
		if err := s.put(ctx, finance, workspace+"/"+ledgerFile, strings.NewReader("account,balance\n"+s.canary+",10000.00 EUR\n")); err != nil {
			return err
		}
		// Without this, that support does not find the file would mean nothing.
		if b, err := os.ReadFile(ledger); err != nil || !bytes.Contains(b, []byte(s.canary)) {
			return fmt.Errorf("finance's file is not at %s: %w", ledger, err)
		}
		return nil
	}); err != nil {
		return err
	}
	return s.wait(ctx, "the agent's program, copied into its computer", func(ctx context.Context) error {
		self, err := os.Open("/proc/self/exe")
		if err != nil {
			return fmt.Errorf("reading this program: %w", err)
		}
		defer self.Close()
		return s.put(ctx, support, programFile, self)
	})
}

// deployer deploys a manifest.
func (s *stage) deployer(manifest string) func(context.Context) error {
	return func(ctx context.Context) error {
		d, err := s.plane.client.Deploy(ctx, api.Deploy{File: "demo", Manifest: manifest})
		if err != nil {
			return err
		}
		if d.Failure != "" {
			return fmt.Errorf("the computer of %s did not come up: %s", d.Agent.Name, d.Failure)
		}
		return nil
	}
}

// put writes a file in an agent's computer.
func (s *stage) put(ctx context.Context, id ambit.AgentID, path string, content io.Reader) error {
	var said bytes.Buffer
	code, err := s.plane.client.Exec(ctx, id, api.Exec{Argv: []string{"/bin/sh", "-c", `cat >"$0" && chmod 700 "$0"`, path}},
		client.Streams{Stdin: content, Stdout: &said, Stderr: &said})
	if err == nil && code != 0 {
		err = fmt.Errorf("exit code %d: %s", code, said.Bytes())
	}
	if err != nil {
		return fmt.Errorf("writing %s in the computer of %s: %w", path, id, err)
	}
	return nil
}

// handle lets support's program handle a ticket, and hands each thing that it
// did to emit, with what the log has of it. With words it begins a task.
func (s *stage) handle(ctx context.Context, ticket, words string, emit func(action, []audit.Call)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var env []string
	if words != "" {
		if _, err := s.plane.client.BeginTask(ctx, support, words); err != nil {
			return err
		}
		env = []string{wordsEnv + "=" + words}
	}
	told, tell := io.Pipe()
	hear, say := io.Pipe()
	var said bytes.Buffer
	ended := make(chan error, 1)
	go func() {
		code, err := s.plane.client.Exec(ctx, support, api.Exec{
			Argv: []string{programFile, "demo", "agent", s.shop.url(), ticket}, Env: env, Dir: workspace, Intent: "answer ticket " + ticket,
		}, client.Streams{Stdin: hear, Stdout: tell, Stderr: &said})
		if err == nil && code != 0 {
			err = fmt.Errorf("its program ended with %d: %s", code, bytes.TrimSpace(said.Bytes()))
		}
		_, _ = tell.Close(), hear.Close() // never fail
		ended <- err
	}()
	err := s.listen(ctx, told, say, emit)
	if err != nil {
		cancel()
	}
	_, _ = told.Close(), say.Close() // never fail
	return cmp.Or(err, <-ended)
}

// listen reads what the program did, until it ends, and lets it go on after
// each thing.
func (s *stage) listen(ctx context.Context, told io.Reader, goOn io.Writer, emit func(action, []audit.Call)) error {
	for dec := json.NewDecoder(told); ; {
		var a action
		if err := dec.Decode(&a); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("reading what the agent did: %w", err)
		}
		calls, err := s.calls(ctx)
		if err != nil {
			return fmt.Errorf("asking for the agent's calls: %w", err)
		}
		emit(a, calls)
		if _, err := goOn.Write([]byte{'\n'}); err != nil && !errors.Is(err, io.ErrClosedPipe) {
			return err
		}
	}
}

// calls returns what the log has since it was last asked, once each of them has
// ended. The log is ahead of the program: a call is in it before it leaves.
func (s *stage) calls(ctx context.Context) ([]audit.Call, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for tick := time.NewTicker(5 * time.Millisecond); ; {
		all, err := s.plane.client.Calls(ctx, support, audit.CallQuery{})
		if err != nil {
			tick.Stop()
			return nil, err
		}
		calls := slices.DeleteFunc(all, func(c audit.Call) bool { return c.Seq < s.last })
		if !slices.ContainsFunc(calls, func(c audit.Call) bool { return !c.Done }) {
			tick.Stop()
			if n := len(calls); n > 0 {
				s.last = calls[n-1].Seq + 1
			}
			return calls, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			tick.Stop()
			return nil, ctx.Err()
		}
	}
}
