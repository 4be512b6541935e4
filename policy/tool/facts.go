package tool

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"ambit"
	"ambit/internal/cedartext"
	"ambit/internal/hostname"
	"ambit/internal/money"
)

// subject is what a call is about, as far as rules look at it.
type subject struct {
	call    *ambit.ToolCall
	source  string // of the tool's name
	args    value
	priced  bool // the amount and its currency are known
	price   money.Price
	counted bool // how many things it is about is known
	count   int64
	targets []string
	outside bool           // it leaves, and not only to the operator's people
	gated   bool           // no approval replaces the default gates
	small   bool           // within the threshold of its currency
	effects []ambit.Effect // those that the role judges
	totals  map[Meter]money.Amount
}

// errCurrencies is what amounts of several currencies come to.
var errCurrencies = errors.New("it has amounts of several currencies, which are not added up")

// checkTool refuses a declaration that nothing can be decided by.
func checkTool(t *ambit.Tool) error {
	if len(t.Effects) == 0 {
		return errors.New("nobody has said what this tool does (its effects), so no rule can judge it")
	}
	for _, e := range t.Effects {
		if !cedartext.IsEffect(string(e)) {
			return fmt.Errorf("the tool's declaration has the effect %s, which there is not", strconv.QuoteToASCII(string(e)))
		}
	}
	return nil
}

// examine reads what the arguments mean.
func (s *Set) examine(c *ambit.ToolCall) (*subject, error) {
	args, err := parseArgs(c.Args)
	if err != nil {
		return nil, err
	}
	f := &subject{call: c, args: args}
	f.source, _, _ = strings.Cut(c.Tool.Name, ".")
	if err := f.readPrice(); err != nil {
		return nil, err
	}
	if err := f.readTargets(); err != nil {
		return nil, err
	}
	if err := f.readCount(); err != nil {
		return nil, err
	}
	f.outside = c.Tool.Leaves && !s.allInside(f.targets)
	f.gated = !s.replaced[c.Tool.Name]
	threshold, ok := s.askAbove[f.price.Currency]
	f.small = f.priced && ok && f.price.Amount <= threshold
	widened := s.widened[c.Tool.Name]
	for _, e := range c.Tool.Effects {
		if !slices.Contains(widened, e) {
			f.effects = append(f.effects, e)
		}
	}
	return f, nil
}

// readPrice adds up the amounts. One that is not there makes the whole price
// unknown, because a service may take that for "all of it".
func (f *subject) readPrice() error {
	t := f.call.Tool
	if t.Amount == "" {
		return nil
	}
	p, err := parsePointer(t.Amount)
	if err != nil {
		return fmt.Errorf("the tool's declaration of its amount: %w", err)
	}
	found, whole := p.find(f.args)
	sum := money.Amount(0)
	for _, v := range found {
		var a money.Amount
		switch {
		case v.kind == number:
			a, err = money.ParseNumber(v.text)
		case v.kind == text && declaredText(t.Input, p):
			a, err = money.Parse(v.text)
		case v.kind == null:
			whole = false
		default:
			err = errors.New("it is not a number")
		}
		if err != nil {
			return fmt.Errorf("the amount cannot be read: %w", err)
		}
		sum = sum.Add(a)
	}
	currency, err := f.readCurrency()
	if err != nil {
		return err
	}
	if whole && len(found) > 0 && currency != "" {
		f.priced, f.price = true, money.Price{Amount: sum, Currency: currency}
	}
	return nil
}

// readCurrency is "" if it is not known.
func (f *subject) readCurrency() (string, error) {
	t := f.call.Tool
	if money.Currency(t.Currency) || t.Currency == "" {
		return t.Currency, nil
	}
	p, err := parsePointer(t.Currency)
	if err != nil {
		return "", fmt.Errorf("the tool's declaration of its currency: %w", err)
	}
	found, whole := p.find(f.args)
	currency := ""
	for _, v := range found {
		if v.kind == null {
			whole = false
			continue
		}
		code := v.text
		if lower := strings.ToLower(code); code == lower { // "eur", as some services write it
			code = asciiUpper(code)
		}
		switch {
		case v.kind != text || !money.Currency(code):
			return "", errors.New("the currency is not three letters")
		case currency != "" && currency != code:
			return "", errCurrencies
		}
		currency = code
	}
	if !whole {
		return "", nil
	}
	return currency, nil
}

// asciiUpper leaves everything but a-z as it is: no other letter becomes one of
// A-Z by it.
func asciiUpper(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'a' <= c && c <= 'z' {
			b[i] = c - 'a' + 'A'
		}
	}
	return string(b)
}

func (f *subject) readTargets() error {
	for _, path := range f.call.Tool.Targets {
		p, err := parsePointer(path)
		if err != nil {
			return fmt.Errorf("the tool's declaration of its targets: %w", err)
		}
		found, _ := p.find(f.args)
		for _, v := range found {
			items := []value{v}
			if v.kind == list {
				items = v.list
			}
			for _, item := range items {
				switch item.kind {
				case text, number:
					f.targets = append(f.targets, item.text)
				case null:
				default:
					return errors.New("what says who or what gets something is neither text nor a number")
				}
			}
		}
	}
	return nil
}

// readCount takes the largest of what says how many: the quantities that the
// tool declares, the lengths of such lists, and the number of targets. No target
// at all is unknown: a service may take that for everybody.
func (f *subject) readCount() error {
	t := f.call.Tool
	f.count, f.counted = int64(len(f.targets)), len(f.targets) > 0
	for i, path := range t.Limits {
		p, err := parsePointer(path)
		if err != nil {
			return fmt.Errorf("the tool's declaration of its limits: %w", err)
		}
		found, whole := p.find(f.args)
		sum := money.Amount(0)
		for _, v := range found {
			switch v.kind {
			case number:
				a, err := money.ParseNumber(v.text)
				if err != nil {
					return fmt.Errorf("a quantity cannot be read: %w", err)
				}
				sum = sum.Add(a)
			case list:
				sum = sum.Add(money.Amount(len(v.list)) * money.Unit)
			case null:
				whole = false
			default:
				return errors.New("a quantity is not a number")
			}
		}
		f.counted = (f.counted || i == 0) && whole && len(found) > 0
		n := int64(sum / money.Unit)
		if sum%money.Unit != 0 {
			n++
		}
		f.count = max(f.count, n)
	}
	return nil
}

// allInside reports whether every target is somebody or something in the
// operator's own domains. None at all is not.
func (s *Set) allInside(targets []string) bool {
	for _, t := range targets {
		if !s.isInside(t) {
			return false
		}
	}
	return len(targets) > 0
}

// isInside takes a mail address or an https address apart in the strictest way:
// what could be read in two ways is outside.
func (s *Set) isInside(target string) bool {
	domain := ""
	if rest, ok := strings.CutPrefix(target, "https://"); ok {
		domain, _, _ = strings.Cut(rest, "/")
		if strings.ContainsAny(rest, "@\\?#") {
			return false
		}
	} else {
		local, host, ok := strings.Cut(target, "@")
		if !ok || local == "" || len(local) > 64 || !plainLocal(local) {
			return false
		}
		domain = host
	}
	if len(domain) > 253 || hostname.IsIP(domain) {
		return false
	}
	name, err := hostname.Canonical(domain)
	if err != nil || name != asciiLower(domain) {
		return false
	}
	if s.inside[name] {
		return true
	}
	for i := range len(name) {
		if name[i] == '.' && s.insideBelow[name[i+1:]] {
			return true
		}
	}
	return false
}

func plainLocal(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("._+-", c) >= 0) {
			return false
		}
	}
	return true
}

func asciiLower(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c - 'A' + 'a'
		}
	}
	return string(b)
}
