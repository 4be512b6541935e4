package audit

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"

	"ambit"
)

// world makes events of a few words, hosts and people.
type world struct {
	*rand.Rand
	next uint64
	open []uint64 // requests without an outcome
	asks []uint64
}

func one[T any](w *world, of ...T) T { return of[w.IntN(len(of))] }

func (w *world) subject() ambit.Subject {
	return ambit.Subject{Kind: "email", Value: one(w, "alice", "bob", "carol", "dave") + "@example.org"}
}

func (w *world) words() string {
	text := one(w, "refund", "Order", "ship", "größe", "re\u200bfund", "注文", "\xff\xfe", "\u202ereverse", "x", "") + one(w, " ", ", ", "\x00") + one(w, "customer", "LIST", "a", "9", "order") + " " + one(w, "today", "now", strings.Repeat("y", 80), "")
	if w.IntN(25) == 0 { // more words than are indexed
		for i := range 300 {
			text += fmt.Sprintf(" w%d", i)
		}
		text += " hidden"
	}
	return text
}

func (w *world) event() ambit.Event {
	e := ambit.Event{
		Kind: ambit.KindEgressRequest, Principal: ambit.PrincipalAgent, Decision: ambit.Decision(w.IntN(4) / 1 & 1), Action: one(w, ambit.ActionHTTP, ambit.ActionConnect),
		Method: one(w, "GET", "POST"), Host: one(w, "api.shop.example", "shop.example", "myshop.example", "10.0.0.1", "", "a.b.c.d.e.f.g.h.i.j.k.l.m.n.o.p.q.r.shop.example"),
		Intent: w.words(), Effects: []ambit.Effect{one(w, ambit.EffectRead, ambit.EffectWrite)}, Connection: one(w, "", "crm", "mail"),
		Task: one(w, "", "t1"), Rule: one(w, "", "egress.allow[0]"),
	}
	e.URL = "https://" + e.Host + one(w, "/orders/12?x=blue%20shoes", "/%zz/%C3%BC", "/v1/customer", "")
	switch n := w.IntN(20); {
	case n < 8 && len(w.open) > 0:
		of := w.open[0]
		w.open = w.open[1:]
		e = ambit.Event{Kind: ambit.KindEgressOutcome, Principal: ambit.PrincipalAmbit, Of: &of, Host: "api.shop.example", Decision: ambit.Allow, Status: one(w, 200, 500, 0), Detail: one(w, "", w.words())}
	case n == 8 && len(w.open) > 0:
		of := one(w, w.open...)
		e = ambit.Event{Kind: ambit.KindApprovalAsk, Of: &of, Tool: one(w, "mail.send", "shop.refund")}
		w.asks = append(w.asks, w.next)
	case n == 9 && len(w.asks) > 0:
		of := one(w, w.asks...)
		e = ambit.Event{Kind: ambit.KindApprovalAnswer, Of: &of, Principal: one(w, ambit.Principal("uid:1000"), "uid:7"), Reason: &ambit.Reason{Code: "too-dear", Text: w.words()}}
	case n == 10:
		of := w.next + uint64(w.IntN(3)) // one that is not before it
		e = ambit.Event{Kind: ambit.KindAlert, Of: &of, Detail: w.words(), Resource: "manifest 3"}
	default:
		w.open = append(w.open, w.next)
	}
	for range w.IntN(3) {
		e.Touched = append(e.Touched, w.subject())
	}
	e.More = w.IntN(12) / 11 * 3
	w.next++
	return e
}

func (w *world) query() (q Query) {
	some := func() bool { return w.IntN(4) == 0 }
	if some() {
		q.Kinds = []ambit.Kind{one(w, ambit.KindEgressRequest, ambit.KindEgressOutcome, ambit.KindApprovalAnswer), ambit.KindAlert}
	}
	if some() {
		q.Decision = new(ambit.Decision)
		*q.Decision = ambit.Decision(w.IntN(2))
	}
	if some() {
		q.Hosts = []string{one(w, "shop.example", "example", "API.shop.example.", "nowhere", "0.0.1", "r.shop.example", "")}
	}
	if some() {
		q.Text = one(w, "refund", "ORDER customer", `"order customer"`, "hidden", "blue shoes", `"blue shoes" 12`, "GRÖSSE größe", "注文", "today", "too dear", strings.Repeat("y", 64), "manifest")
	}
	if some() {
		q.Intent = one(w, "refund", "order list", `"list today"`)
	}
	if some() {
		q.Subjects = []ambit.Subject{w.subject()}
	}
	if some() {
		q.Statuses = []int{one(w, 200, 500, 0)}
	}
	if some() {
		q.Connections = []string{one(w, "crm", "mail", "")}
	}
	if some() {
		q.Methods, q.Effects = []string{"GET"}, []ambit.Effect{one(w, ambit.EffectRead, ambit.EffectSend)}
	}
	if some() {
		q.Principals = []ambit.Principal{one(w, ambit.Principal("uid:1000"), ambit.PrincipalAgent)}
	}
	if some() {
		q.Tools, q.Tasks = []string{one(w, "mail.send", "x")}, []string{"t1"}
	}
	if some() {
		q.Actions, q.Rules = []ambit.Action{ambit.ActionHTTP}, []string{"egress.allow[0]"}
	}
	if at := w.Uint64N(w.next + 2); some() {
		q.After = &at
	}
	if at := w.Uint64N(w.next + 2); some() {
		q.Before = &at
	}
	q.Limit, q.Newest = one(w, 0, 0, 1, 7), w.IntN(2) == 0
	return q
}

// naive is what a search has to find, done the plain way.
type naive struct {
	keys         *keyring
	all          []ambit.Event
	word, format *regexp.Regexp
	words        map[string][]string
}

func (n *naive) plainWords(s string) []string {
	if words, ok := n.words[s]; ok {
		return words
	}
	words := n.word.FindAllString(strings.ReplaceAll(strings.ToLower(n.format.ReplaceAllString(s, "")), "\ufffd", " "), -1)
	words = slices.DeleteFunc(words, func(w string) bool { return len(w) < 2 })
	for i, w := range words {
		words[i] = w[:min(len(w), 64)]
	}
	n.words[s] = words
	return words
}

func (n *naive) erased(e *ambit.Event) bool { return e.V == 0 }

func (n *naive) texts(e *ambit.Event, intent bool) []string {
	if intent || n.erased(e) {
		return []string{e.Intent}
	}
	texts := []string{e.URL, strings.ReplaceAll(strings.ReplaceAll(e.URL, "%20", " "), "%C3%BC", "ü"), e.Intent, e.Tool, e.Resource, e.Detail}[1:]
	if e.Reason != nil {
		texts = append(texts, e.Reason.Code, e.Reason.Text)
	}
	return texts
}

func (n *naive) hasText(chain []ambit.Event, query string, intent bool) bool {
	for i, part := range strings.Split(query, `"`) {
		want := n.plainWords(part)
		groups := [][]string{want}
		if i%2 == 0 {
			groups = nil
			for _, w := range want {
				groups = append(groups, []string{w})
			}
		}
		for _, g := range groups {
			if !slices.ContainsFunc(chain, func(e ambit.Event) bool {
				return slices.ContainsFunc(n.texts(&e, intent), func(s string) bool {
					return strings.Contains(" "+strings.Join(n.plainWords(s), " ")+" ", " "+strings.Join(g, " ")+" ")
				})
			}) {
				return false
			}
		}
	}
	return true
}

func (n *naive) matches(q *Query, chain ...ambit.Event) bool {
	any_ := func(asked bool, f func(e ambit.Event) bool) bool { return !asked || slices.ContainsFunc(chain, f) }
	return any_(len(q.Kinds) > 0, func(e ambit.Event) bool { return slices.Contains(q.Kinds, e.Kind) }) &&
		any_(q.Decision != nil, func(e ambit.Event) bool { return e.Decision == *q.Decision }) &&
		any_(len(q.Hosts) > 0, func(e ambit.Event) bool {
			want := strings.ToLower(strings.Trim(q.Hosts[0], "."))
			return e.Host == want || want != "" && strings.HasSuffix(e.Host, "."+want)
		}) &&
		any_(len(q.Subjects) > 0, func(e ambit.Event) bool { return slices.Contains(e.Subjects, n.keys.subject(q.Subjects[0])) }) &&
		any_(len(q.Statuses) > 0, func(e ambit.Event) bool { return e.Status != 0 && e.Status == q.Statuses[0] }) &&
		any_(len(q.Connections) > 0, func(e ambit.Event) bool { return e.Connection == q.Connections[0] }) &&
		any_(len(q.Methods) > 0, func(e ambit.Event) bool { return e.Method == q.Methods[0] }) &&
		any_(len(q.Effects) > 0, func(e ambit.Event) bool { return slices.Contains(e.Effects, q.Effects[0]) }) &&
		any_(len(q.Principals) > 0, func(e ambit.Event) bool { return e.Principal == q.Principals[0] }) &&
		any_(len(q.Tools) > 0, func(e ambit.Event) bool { return e.Tool == q.Tools[0] }) &&
		any_(len(q.Tasks) > 0, func(e ambit.Event) bool { return e.Task == q.Tasks[0] }) &&
		any_(len(q.Actions) > 0, func(e ambit.Event) bool { return e.Action == q.Actions[0] }) &&
		any_(len(q.Rules) > 0, func(e ambit.Event) bool { return e.Rule == q.Rules[0] }) &&
		n.hasText(chain, q.Text, false) && n.hasText(chain, q.Intent, true)
}

func (n *naive) span(q *Query) []ambit.Event {
	span := slices.DeleteFunc(slices.Clone(n.all), func(e ambit.Event) bool {
		return q.After != nil && e.Seq <= *q.After || q.Before != nil && e.Seq >= *q.Before
	})
	if q.Newest {
		slices.Reverse(span)
	}
	return span
}

func cutTo[T any](q *Query, list []T) []T {
	if q.Limit > 0 && len(list) > q.Limit {
		return list[:q.Limit]
	}
	return list
}

func (n *naive) search(q *Query) []ambit.Event {
	events := slices.DeleteFunc(n.span(q), func(e ambit.Event) bool { return !n.matches(q, e) })
	return cutTo(q, events)
}

func (n *naive) chain(e ambit.Event) []ambit.Event {
	chain := []ambit.Event{e}
	for len(chain) < maxChain && e.Of != nil && *e.Of < e.Seq {
		e = n.all[*e.Of]
		chain = append(chain, e)
	}
	return chain
}

// find returns the positions that match and, of each, the call.
func (n *naive) find(q *Query) []hit {
	hits, seen := []hit{}, map[uint64]bool{}
	for _, e := range n.span(q) {
		chain := n.chain(e)
		root := chain[len(chain)-1].Seq
		ok := n.matches(q, chain...) && !seen[root]
		for i := 1; i < len(chain); i++ {
			if (q.After == nil || chain[i].Seq > *q.After) && n.matches(q, chain[i:]...) {
				ok = false
			}
		}
		if ok {
			seen[root] = true
			hits = append(hits, hit{e.Seq, root})
		}
	}
	return hits
}

// members are the positions of a call's events.
func (n *naive) members(root uint64) (seqs []uint64) {
	for _, e := range n.all {
		if chain := n.chain(e); chain[len(chain)-1].Seq == root {
			seqs = append(seqs, e.Seq)
		}
	}
	return seqs
}

func (t *Touch) seqs() []uint64 {
	seqs := []uint64{t.Event.Seq}
	if t.Outcome != nil {
		seqs = append(seqs, t.Outcome.Seq)
	}
	for _, e := range slices.Concat(t.Approvals, t.Others) {
		seqs = append(seqs, e.Seq)
	}
	slices.Sort(seqs)
	return seqs
}
