package tool

import (
	"cmp"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"

	"github.com/cedar-policy/cedar-go"

	"ambit"
	"ambit/internal/cedartext"
)

// Codes of reasons.
const (
	CodeNoPolicy     = "no-policy"        // nothing was compiled
	CodePolicyError  = "policy-error"     // a policy could not be evaluated
	CodeBadName      = "bad-tool-name"    // not lower-case ASCII, not qualified
	CodeUndeclared   = "tool-undeclared"  // its effects are not known
	CodeNotAllowed   = "tool-not-allowed" // no rule names it
	CodeDenied       = "tool-denied"      // a rule denies it
	CodeBadArguments = "bad-arguments"    // they cannot be read in one way
	CodeCurrencies   = "mixed-currencies" //
	CodeScope        = "out-of-scope"     // an argument has another value than a rule names
	CodeLimit        = "limit-exceeded"   //
	CodeUnmeasured   = "limit-unmeasured" // an amount is unknown, or of another currency
	CodeRole         = "role-denied"      // the role does not do that
	CodeCedar        = "cedar-denied"     // the operator's own Cedar
	CodeApproval     = "approval-needed"  // a person is asked
)

// selection is the policies that can say something about one call, in order.
type selection struct {
	rules []*rule
	own   bool // some of them are the operator's Cedar
	reads reads
}

// All implements cedar.PolicyIterator.
func (s *selection) All() iter.Seq2[cedar.PolicyID, *cedar.Policy] {
	return func(yield func(cedar.PolicyID, *cedar.Policy) bool) {
		for _, r := range s.rules {
			if !yield(r.id, r.policy) {
				return
			}
		}
	}
}

func (s *Set) choose(t *ambit.Tool) *selection {
	source, _, _ := strings.Cut(t.Name, ".")
	n := len(s.byTool[t.Name]) + len(s.bySource[source]) + len(s.always) + 8
	chosen := &selection{rules: make([]*rule, 0, n)}
	chosen.rules = append(append(append(chosen.rules, s.byTool[t.Name]...), s.bySource[source]...), s.always...)
	for i, e := range t.Effects {
		if !slices.Contains(t.Effects[:i], e) {
			chosen.rules = append(chosen.rules, s.byEffect[e]...)
		}
	}
	for _, r := range chosen.rules {
		chosen.own = chosen.own || r.own
		chosen.reads |= r.reads
	}
	return chosen
}

// Decide decides a call. Whatever cannot be decided is denied, also if
// something panics.
func (s *Set) Decide(c *ambit.ToolCall, facts Facts) (v ambit.ToolVerdict) {
	defer func() {
		if x := recover(); x != nil {
			v = refuse("", CodePolicyError, fmt.Sprintf("the policy failed: %v", x), "report this; nothing was let through")
		}
	}()
	if v, bad := s.precheck(c); bad {
		return v
	}
	chosen := s.choose(c.Tool)
	if !slices.ContainsFunc(chosen.rules, func(r *rule) bool { return r.kind == permits }) {
		return refuse("", CodeNotAllowed, "no rule allows the tool "+c.Tool.Name, "add - {tool: "+c.Tool.Name+"} to tools and deploy again")
	}
	f, err := s.examine(c)
	if err != nil {
		code := CodeBadArguments
		if errors.Is(err, errCurrencies) {
			code = CodeCurrencies
		}
		return refuse("", code, err.Error(), "nothing in the manifest can allow this; the call must be written in one clear way")
	}
	f.totals = facts.Totals
	request, err := s.request(f, chosen)
	if err != nil {
		return refuse("", CodePolicyError, err.Error(), "")
	}
	decision, diagnostic := cedar.Authorize(chosen, f.entities(), request)
	if len(diagnostic.Errors) > 0 {
		return s.erred(diagnostic.Errors)
	}
	return s.verdict(f, decision, diagnostic.Reasons)
}

// precheck refuses what no rule is asked about.
func (s *Set) precheck(c *ambit.ToolCall) (ambit.ToolVerdict, bool) {
	switch {
	case s == nil || len(s.rules) == 0:
		return refuse("", CodeNoPolicy, "there is no policy for tools, so every call is refused", "deploy a manifest"), true
	case c == nil || c.Tool == nil:
		return refuse("", CodeBadArguments, "the call names no tool", ""), true
	case !cedartext.ToolName(c.Tool.Name):
		return refuse("", CodeBadName, "the tool's name is not fully qualified in lower-case ASCII letters, so it is none that a rule can name", "call the tool by the name that it is listed under"), true
	}
	if err := checkTool(c.Tool); err != nil {
		return refuse("", CodeUndeclared, err.Error(), "declare its effects where the tool is declared"), true
	}
	return ambit.ToolVerdict{}, false
}

func refuse(rule, code, text, remedy string) ambit.ToolVerdict {
	return ambit.ToolVerdict{Verdict: ambit.Verdict{Rule: rule, Reason: ambit.Reason{Code: code, Text: text, Remedy: remedy}}}
}

// erred names the first policy that could not be evaluated.
func (s *Set) erred(errs []cedar.DiagnosticError) ambit.ToolVerdict {
	first := slices.MinFunc(errs, func(a, b cedar.DiagnosticError) int { return cmp.Compare(s.order(a.PolicyID), s.order(b.PolicyID)) })
	label := ""
	if r := s.rules[first.PolicyID]; r != nil {
		label = r.label
	}
	return refuse(label, CodePolicyError, label+" cannot be evaluated for this call: "+printable(first.Message)+"; a policy that fails denies, because it may be one that forbids",
		"write the policy so that it holds for every call, for example with has before an attribute, and try it with ambit policy explain")
}

// printable makes a message that may quote arguments inert and short.
func printable(s string) string {
	s = strconv.QuoteToASCII(s)
	s = s[1 : len(s)-1]
	if len(s) > 300 {
		s = s[:300] + "..."
	}
	return s
}

func (s *Set) order(id cedar.PolicyID) int {
	if r := s.rules[id]; r != nil {
		return r.order
	}
	return -1
}

// verdict turns the policies that applied into a decision: a forbid that is
// none of those that ask denies.
func (s *Set) verdict(f *subject, decision cedar.Decision, reasons []cedar.DiagnosticReason) ambit.ToolVerdict {
	rules := make([]*rule, 0, len(reasons))
	for _, d := range reasons {
		r := s.rules[d.PolicyID]
		if r == nil {
			return refuse("", CodePolicyError, "a policy decided that there is not", "report this; nothing was let through")
		}
		rules = append(rules, r)
	}
	slices.SortFunc(rules, func(a, b *rule) int { return a.order - b.order })
	if decision == cedar.Allow && len(rules) > 0 {
		named := rules[0]
		if i := slices.IndexFunc(rules, func(r *rule) bool { return r.exact }); i >= 0 {
			named = rules[i]
		}
		return ambit.ToolVerdict{Verdict: ambit.Verdict{Decision: ambit.Allow, Rule: named.label}}
	}
	var wanted []ambit.Ask
	for _, r := range rules {
		if r.kind != asks {
			return ambit.ToolVerdict{Verdict: ambit.Verdict{Rule: r.label, Reason: r.reason(f)}}
		}
		ask := *r.ask
		ask.Reason = r.reason(f)
		wanted = append(wanted, ask)
	}
	if len(wanted) == 0 {
		return refuse("", CodeNotAllowed, "no rule allows the tool "+f.call.Tool.Name+" for this call", "")
	}
	v := refuse(wanted[0].Rule, CodeApproval, "a person is asked before this runs: "+wanted[0].Reason.Text, "")
	v.Asks = wanted
	return v
}
