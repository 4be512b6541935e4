package upstream

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"ambit/internal/jcs"
	"ambit/tools"
)

// list fetches the definitions of all tools. One name twice is an error, as is
// anything that is no definition: a list that cannot be believed changes nothing.
func (c *client) list(ctx context.Context) ([]*definition, error) {
	var all []*definition
	names := map[string]bool{}
	cursor, size := "", 0
	for range maxPages {
		params := map[string]any{}
		if cursor != "" {
			params["cursor"] = cursor
		}
		result, err := c.request(ctx, "tools/list", params)
		if err != nil {
			return nil, err
		}
		page, ok := result["tools"].([]any)
		if !ok {
			return nil, errors.New("the server's list has no tools")
		}
		for _, v := range page {
			d, err := readDefinition(v)
			if err != nil {
				return nil, err
			}
			if names[d.Name] {
				return nil, fmt.Errorf("the server offers two tools called %s", said(d.Name))
			}
			names[d.Name] = true
			all = append(all, d)
			if size += len(d.Name) + len(d.Description) + len(d.Input) + len(d.Output); size > maxOffer || len(all) > maxOffered {
				return nil, fmt.Errorf("the server offers more than %d tools, or more than %d bytes of them", maxOffered, maxOffer)
			}
		}
		next, more := result["nextCursor"].(string)
		if !more || next == "" {
			return all, nil
		}
		if next == cursor || len(next) > 4096 {
			return nil, errors.New("the server's list does not go on")
		}
		cursor = next
	}
	return nil, fmt.Errorf("the server's list has more than %d pages", maxPages)
}

// call calls a tool with canonical arguments.
func (c *client) call(ctx context.Context, tool string, args []byte) (tools.Result, error) {
	result, err := c.request(ctx, "tools/call", map[string]any{"name": tool, "arguments": json.RawMessage(args)})
	if err != nil {
		var refused *remote
		if errors.As(err, &refused) || errors.Is(err, errSession) {
			return tools.Result{}, err
		}
		return tools.Result{}, fmt.Errorf("%w; whether the call took effect is not known", err)
	}
	return readResult(result)
}

// readResult makes of a result the one thing that is passed on: its structured
// content; or its text, as JSON if it is that; what is neither is named and dropped.
func readResult(m map[string]any) (tools.Result, error) {
	var r tools.Result
	var ok bool
	if r.IsError, ok = m["isError"].(bool); !ok && m["isError"] != nil {
		return r, errors.New("the server's result does not say whether it is an error")
	}
	content, ok := m["content"].([]any)
	if !ok && m["content"] != nil {
		return r, errors.New("the content of the server's result is no list")
	}
	if structured, ok := m["structuredContent"]; ok && structured != nil {
		var err error
		r.JSON, err = jcs.Append(nil, structured)
		return r, err
	}
	var texts []string
	for _, v := range content {
		block, _ := v.(map[string]any)
		switch text, isText := block["text"].(string); {
		case block["type"] == "text" && isText:
			texts = append(texts, text)
		default:
			kind, _ := block["type"].(string)
			texts = append(texts, fmt.Sprintf("[%s: not passed on]", said(kind)))
		}
	}
	r.Text = strings.Join(texts, "\n")
	if t := strings.TrimSpace(r.Text); len(texts) == 1 && t != "" && (t[0] == '{' || t[0] == '[') {
		if b, err := jcs.Canonical([]byte(t)); err == nil {
			r.JSON, r.Text = b, ""
		}
	}
	return r, nil
}

// field writes what a header field cannot hold as MCP wants it.
func field(s string) string {
	if strings.ContainsFunc(s, func(r rune) bool { return r < 0x20 || r > 0x7e }) || strings.TrimSpace(s) != s || strings.HasPrefix(s, "=?base64?") {
		return "=?base64?" + base64.StdEncoding.EncodeToString([]byte(s)) + "?="
	}
	return s
}
