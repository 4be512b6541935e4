package tool

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/cedar-policy/cedar-go"
	"github.com/cedar-policy/cedar-go/types"

	"ambit"
	"ambit/internal/money"
)

// missing stands in a set of values where a pointer led nowhere; no JSON text
// is like it.
const missing = types.String("")

// reads is what a policy of ours looks at in the context, beside what its scopes
// and limits name. What no chosen policy looks at need not be there: a context
// costs by its size, most of all when it has more than eight entries.
type reads uint8

const (
	readsOutside reads = 1 << iota
	readsGated
	readsThreshold
	readsEffects
	readsCount
)

// readsOf finds it in the policy's text. Were something overlooked, the policy
// would fail, and so deny.
func readsOf(source string) (r reads) {
	for i, name := range [...]string{"outside", "gated", "withinThreshold", "roleEffects", "count"} {
		if strings.Contains(source, "context."+name) || strings.Contains(source, "context has "+name) {
			r |= 1 << i
		}
	}
	return r
}

// request is the call as Cedar sees it. The operator's own Cedar sees everything.
func (s *Set) request(f *subject, chosen *selection) (cedar.Request, error) {
	c := f.call
	size, wanted := 8, chosen.reads
	if chosen.own {
		size, wanted = 24, ^reads(0)
	}
	m := make(types.RecordMap, size)
	if wanted&readsOutside != 0 {
		m["outside"] = types.Boolean(f.outside)
	}
	if wanted&readsGated != 0 {
		m["gated"] = types.Boolean(f.gated)
	}
	if wanted&readsThreshold != 0 {
		m["withinThreshold"] = types.Boolean(f.small)
	}
	if f.priced {
		amount, err := decimal(f.price.Amount)
		if err != nil {
			return cedar.Request{}, err
		}
		m["amount"], m["currency"] = amount, types.String(f.price.Currency)
	}
	if wanted&readsEffects != 0 {
		m["roleEffects"] = effectSet(f.effects)
	}
	if f.counted && wanted&readsCount != 0 {
		m["count"] = types.Long(f.count)
	}
	if err := f.addScopes(m, chosen); err != nil {
		return cedar.Request{}, err
	}
	if err := f.addTotals(m, chosen); err != nil {
		return cedar.Request{}, err
	}
	if chosen.own {
		if err := f.addOwn(m); err != nil {
			return cedar.Request{}, err
		}
	}
	return cedar.Request{Principal: s.principal, Action: s.action, Resource: types.NewEntityUID(typeTool, types.String(c.Tool.Name)), Context: types.NewRecord(m)}, nil
}

func effectSet(effects []ambit.Effect) types.Set {
	values := make([]types.Value, len(effects))
	for i, e := range effects {
		values[i] = types.String(e)
	}
	return types.NewSet(values...)
}

func decimal(a money.Amount) (types.Decimal, error) { return types.NewDecimal(int64(a), -4) }

// atKey names what is at a pointer within a context. Records in records would
// cost more than they explain.
func atKey(pointer string) string { return "at " + pointer }

// addScopes adds what is at the pointers that chosen rules name.
func (f *subject) addScopes(m types.RecordMap, chosen *selection) error {
	for _, r := range chosen.rules {
		for _, sc := range r.scopes {
			found, whole := sc.pointer.find(f.args)
			values := make([]types.Value, 0, len(found)+1)
			if !whole {
				values = append(values, missing)
			}
			for _, v := range found {
				s, ok := v.literal()
				if !ok {
					s = string(missing)
				}
				values = append(values, types.String(s))
			}
			m[sc.key] = types.NewSet(values...)
		}
	}
	return nil
}

// addTotals adds the running totals with this call.
func (f *subject) addTotals(m types.RecordMap, chosen *selection) error {
	for _, r := range chosen.rules {
		if r.limit == nil || r.limit.Window == 0 {
			continue
		}
		sum, ok := f.totals[r.meter]
		if !ok || sum < 0 {
			return fmt.Errorf("the running total for %s is not known", r.label)
		}
		d, err := decimal(sum.Add(f.draw(r.meter.Series)))
		if err != nil {
			return err
		}
		m[r.key] = d
	}
	return nil
}

// draw is what the call adds to a series that is for it.
func (f *subject) draw(s Series) money.Amount {
	switch {
	case s.Currency == "":
		return money.Unit
	case f.priced && f.price.Currency == s.Currency:
		return f.price.Amount
	}
	return 0 // and refused, where there is a limit
}

// addOwn adds what only the operator's own Cedar looks at.
func (f *subject) addOwn(m types.RecordMap) error {
	targets := make([]types.Value, len(f.targets))
	for i, t := range f.targets {
		targets[i] = types.String(t)
	}
	principal := f.call.Principal
	if principal == "" {
		principal = ambit.PrincipalAgent
	}
	args, err := f.args.cedar()
	if err != nil {
		return err
	}
	m["effects"], m["leaves"] = effectSet(f.call.Tool.Effects), types.Boolean(f.call.Tool.Leaves)
	m["targets"], m["args"] = types.NewSet(targets...), args
	m["intent"], m["task"], m["principal"] = types.String(f.call.Intent), types.String(f.call.Task), types.String(principal)
	return nil
}

// cedar is the value in Cedar's types. A number without a fraction is a Long,
// any other a decimal. One that Cedar cannot hold is an error: were it left out,
// a forbid that asks whether it is there would not apply.
func (v value) cedar() (types.Value, error) {
	switch v.kind {
	case text:
		return types.String(v.text), nil
	case truth:
		return types.Boolean(v.text == "true"), nil
	case number:
		if n, err := strconv.ParseInt(v.text, 10, 64); err == nil {
			return types.Long(n), nil
		}
		d, err := types.ParseDecimal(v.text)
		if err != nil {
			return nil, errors.New("a number in the arguments is too large or has more than four digits after the point, so that your own Cedar cannot judge it")
		}
		return d, nil
	case list:
		items := make([]types.Value, len(v.list))
		for i, item := range v.list {
			x, err := item.cedar()
			if err != nil {
				return nil, err
			}
			items[i] = x
		}
		return types.NewSet(items...), nil
	case object:
		m := make(types.RecordMap, len(v.fields))
		for _, f := range v.fields {
			x, err := f.value.cedar()
			if err != nil {
				return nil, err
			}
			m[types.String(f.name)] = x
		}
		return types.NewRecord(m), nil
	}
	return types.NewEntityUID("Null", ""), nil
}

// entities has the tool of one call and what it is in.
type entities struct{ tool types.Entity }

func (e entities) Get(uid types.EntityUID) (types.Entity, bool) {
	return e.tool, uid == e.tool.UID
}

func (f *subject) entities() entities {
	t := f.call.Tool
	parents := make([]types.EntityUID, 0, len(t.Effects)+1)
	parents = append(parents, types.NewEntityUID(typeSource, types.String(f.source)))
	for _, e := range t.Effects {
		parents = append(parents, types.NewEntityUID(typeEffect, types.String(e)))
	}
	return entities{types.Entity{UID: types.NewEntityUID(typeTool, types.String(t.Name)), Parents: types.NewEntityUIDSet(parents...)}}
}
