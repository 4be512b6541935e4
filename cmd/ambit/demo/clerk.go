//go:build linux

package demo

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"ambit"
)

// wordsEnv is where a program finds what a person wants, as with `exec --task`.
const wordsEnv = "AMBIT_TASK_WORDS"

// revision is that of the Model Context Protocol which the program speaks.
const revision = "2026-07-28"

// resultPatience is how many seconds one call of ambit.result waits.
const resultPatience = 30

// clerk is the part of the agent's program that works with tools. It does what the
// person says who gave it the task, and then what the ticket says: to it, both are
// text.
type clerk struct {
	*obeyer
	id int // of the last message
}

// told is what a tool call gave.
type told struct {
	Fields  json.RawMessage `json:"structuredContent"`
	IsError bool            `json:"isError"`
	Content []struct {
		Text string `json:"text"`
	} `json:"content"`
}

// status is what a call has come to that waits, or was denied.
type status struct {
	Status   string `json:"status"`
	Question string `json:"question"`
}

func (c *clerk) serve(ctx context.Context, words, id string) error {
	number, err := strconv.Atoi(id)
	if err != nil {
		return fmt.Errorf("%q is not the number of a ticket", id)
	}
	var t ticket
	if err := c.use(ctx, "reads the ticket", "desk.tickets.get", map[string]any{"ticket": number, "intent": "answer ticket " + id}, &t); err != nil {
		return err
	}
	about, err := strconv.Atoi(t.Order)
	if err != nil {
		return fmt.Errorf("ticket %s is about no order", id)
	}
	var o order
	if err := c.use(ctx, "looks up the order", "desk.orders.get", map[string]any{"order": about, "intent": "answer ticket " + id}, &o); err != nil {
		return err
	}
	for _, from := range []string{words, t.Text} {
		for _, r := range refundsIn(from) {
			r.Mail = o.Mail
			if err := c.refund(ctx, id, r); err != nil {
				return err
			}
		}
	}
	return c.obeyAll(ctx, t)
}

// refundsIn finds the refunds that a text wants, of whoever wrote it.
func refundsIn(text string) (found []refund) {
	order, account := regexp.MustCompile(`order ([0-9]+)`).FindStringSubmatch(text), regexp.MustCompile(`\b[A-Z]{2}[0-9]{2}[A-Z0-9]{11,30}\b`).FindString(text)
	if order == nil || account == "" {
		return nil
	}
	number, err := strconv.Atoi(order[1])
	if err != nil {
		return nil
	}
	for _, m := range regexp.MustCompile(`\b([0-9]+) EUR\b`).FindAllStringSubmatch(text, -1) {
		if amount, err := strconv.Atoi(m[1]); err == nil {
			found = append(found, refund{Order: number, Account: account, Amount: amount, Currency: "EUR"})
		}
	}
	return found
}

// refund makes a refund, and fetches its result later if a person is asked.
func (c *clerk) refund(ctx context.Context, ticket string, r refund) error {
	got, did, err := c.call(ctx, "desk.refunds.create", map[string]any{
		"order": r.Order, "account": r.Account, "mail": r.Mail, "amount": r.Amount, "currency": r.Currency, "intent": "refund as agreed in ticket " + ticket,
	})
	if err != nil {
		return err
	}
	var s status
	if err := json.Unmarshal(got.Fields, &s); err != nil {
		return err
	}
	did.Doing = "refunds " + r.money()
	if s.Status == "waiting" {
		did.Question = s.Question
	}
	if err := c.tell(did); err != nil || s.Status != "waiting" {
		return err
	}
	_, did, err = c.call(ctx, "ambit.result", map[string]any{"question": s.Question, "wait": resultPatience})
	if err != nil {
		return err
	}
	did.Doing = "fetches the result"
	return c.tell(did)
}

// use calls a tool of which something must come, and tells it.
func (c *clerk) use(ctx context.Context, doing, name string, args map[string]any, out any) error {
	got, did, err := c.call(ctx, name, args)
	if err != nil {
		return err
	}
	did.Doing = doing
	if err := c.tell(did); err != nil {
		return err
	}
	if got.IsError {
		return fmt.Errorf("%s: %s", did.Line, did.Error)
	}
	return json.Unmarshal(got.Fields, out)
}

// call calls a tool at http://ambit.internal/mcp. The error is for what is no
// answer of a tool.
func (c *clerk) call(ctx context.Context, name string, args map[string]any) (*told, action, error) {
	c.id++
	line, err := json.Marshal(args)
	if err != nil {
		return nil, action{}, err
	}
	body, err := json.Marshal(map[string]any{
		"jsonrpc": "2.0", "id": c.id, "method": "tools/call",
		"params": map[string]any{"name": name, "arguments": args, "_meta": map[string]any{"io.modelcontextprotocol/protocolVersion": revision}},
	})
	if err != nil {
		return nil, action{}, err
	}
	began := time.Now()
	var reply struct {
		Result *told `json:"result"`
		Error  *struct {
			Message string `json:"message"`
		} `json:"error"`
	}
	if err := c.post(ctx, name, body, &reply); err != nil {
		return nil, action{}, fmt.Errorf("calling %s: %w", name, err)
	}
	switch {
	case reply.Error != nil:
		return nil, action{}, fmt.Errorf("calling %s: %s", name, reply.Error.Message)
	case reply.Result == nil:
		return nil, action{}, fmt.Errorf("calling %s: no answer", name)
	}
	did := action{Line: name + " " + string(line), Tool: name, Took: time.Since(began), Got: string(reply.Result.Fields)}
	if reply.Result.IsError {
		var texts []string
		for _, part := range reply.Result.Content {
			texts = append(texts, part.Text)
		}
		did.Error = cmp.Or(strings.Join(texts, " "), "it failed")
	}
	return reply.Result, did, nil
}

func (c *clerk) post(ctx context.Context, name string, body []byte, out any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+ambit.InternalHost+"/mcp", bytes.NewReader(body))
	if err != nil {
		return err
	}
	for k, v := range map[string]string{"Content-Type": "application/json", "Mcp-Protocol-Version": revision, "Mcp-Method": "tools/call", "Mcp-Name": name} {
		req.Header.Set(k, v)
	}
	client := *c.proxy
	client.Timeout = patience + resultPatience*time.Second
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = res.Body.Close() }()
	got, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return err
	}
	if err := json.Unmarshal(got, out); err != nil {
		return fmt.Errorf("status %d, %s", res.StatusCode, got)
	}
	return nil
}
