package approval

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	"ambit"
	"ambit/internal/inert"
)

const (
	maxWords = 400 // bytes of a call in words, before what does not fit is counted
	maxValue = 80  // characters of one value in them
)

// Words is a call in one line, for people: what it does in the world, then the
// arguments that the operator has declared to matter, the amount first. It is
// made of the declaration and the arguments alone. Values are inert and quoted;
// what is left out is said, and stands in the arguments.
func Words(call *ambit.ToolCall) string {
	tool := call.Tool
	parts := []string{tool.Name + effectWords(tool.Effects)}
	var doc any
	d := json.NewDecoder(strings.NewReader(string(call.Args)))
	d.UseNumber()
	if d.Decode(&doc) != nil {
		return parts[0]
	}
	if tool.Amount != "" {
		amounts := find(doc, tool.Amount)
		amount := quoted(first(amounts))
		if len(amounts) > 1 { // the first alone would say too little
			amount = quotedAll(amounts)
		}
		currency := tool.Currency
		if strings.HasPrefix(currency, "/") {
			if currency = text(first(find(doc, currency))); !isCurrency(currency) {
				currency = "in " + quoted(first(find(doc, tool.Currency)))
			}
		}
		parts = append(parts, strings.TrimSpace(lastOf(tool.Amount)+" "+amount+" "+currency))
	}
	left, size := 0, 0
	for _, pointer := range slices.Concat(tool.Targets, tool.Limits) {
		found := find(doc, pointer)
		if len(found) == 0 {
			continue
		}
		part := lastOf(pointer) + " " + quotedAll(found)
		if size += len(part); size > maxWords && left+len(parts) > 1 {
			left++
			continue
		}
		parts = append(parts, part)
	}
	if left > 0 {
		parts = append(parts, "and "+strconv.Itoa(left)+" more")
	}
	return strings.Join(parts, "; ")
}

func isCurrency(s string) bool {
	return len(s) == 3 && strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZ") == ""
}

// quotedAll is a few values of a list.
func quotedAll(found []any) string {
	const few = 4
	var values []string
	for _, v := range found[:min(len(found), few)] {
		values = append(values, quoted(v))
	}
	s := strings.Join(values, ", ")
	if more := len(found) - few; more > 0 {
		s += " and " + strconv.Itoa(more) + " more"
	}
	return s
}

func effectWords(effects []ambit.Effect) string {
	names := map[ambit.Effect]string{
		ambit.EffectWrite: "changes something", ambit.EffectDelete: "deletes", ambit.EffectSpend: "moves money", ambit.EffectSend: "writes to somebody",
		ambit.EffectPublish: "publishes", ambit.EffectAccess: "gives access", ambit.EffectBulk: "many at once", ambit.EffectCustomer: "a customer notices it",
	}
	var words []string
	for _, e := range effects {
		if e != ambit.EffectRead && e != "" {
			w, ok := names[e]
			if !ok {
				w = string(e)
			}
			words = append(words, w)
		}
	}
	if len(effects) == 0 {
		words = []string{"effects not declared"}
	}
	if len(words) == 0 {
		return ""
	}
	return " (" + strings.Join(words, ", ") + ")"
}

// find returns what a pointer (RFC 6901, "*" for every element of a list) leads
// to.
func find(doc any, pointer string) []any {
	at := []any{doc}
	if pointer == "" {
		return at
	}
	for part := range strings.SplitSeq(strings.TrimPrefix(pointer, "/"), "/") {
		part = strings.ReplaceAll(strings.ReplaceAll(part, "~1", "/"), "~0", "~")
		var next []any
		for _, v := range at {
			switch v := v.(type) {
			case map[string]any:
				if child, ok := v[part]; ok {
					next = append(next, child)
				}
			case []any:
				if part == "*" {
					next = append(next, v...)
				} else if i, err := strconv.Atoi(part); err == nil && i >= 0 && i < len(v) {
					next = append(next, v[i])
				}
			}
		}
		at = next
	}
	return at
}

func first(found []any) any {
	if len(found) == 0 {
		return nil
	}
	return found[0]
}

// lastOf names an argument: "order" of "/items/*/order".
func lastOf(pointer string) string {
	parts := strings.Split(pointer, "/")
	for _, p := range slices.Backward(parts) {
		if p != "*" && p != "" {
			return inert.Text(strings.ReplaceAll(strings.ReplaceAll(p, "~1", "/"), "~0", "~"))
		}
	}
	return "all arguments"
}

// quoted is a value as it can stand in a line.
func quoted(v any) string {
	if n, ok := v.(json.Number); ok {
		return shortened(n.String())
	}
	if v == nil {
		return "none"
	}
	return `"` + strings.ReplaceAll(inert.Text(shortened(text(v))), `"`, `'`) + `"`
}

func text(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case json.Number:
		return v.String()
	}
	b, err := json.Marshal(v)
	if err != nil {
		return "?"
	}
	return string(b)
}

func shortened(s string) string {
	if r := []rune(s); len(r) > maxValue {
		return string(r[:maxValue]) + "…"
	}
	return s
}
