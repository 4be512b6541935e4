package tool

import (
	"strconv"
	"time"

	"ambit"
	"ambit/internal/money"
)

// Everything that these sentences echo is printable ASCII: names of tools were
// checked, labels come from the operator, amounts and currencies are our own
// writing of them. Arguments are not repeated.

// reason says why the rule took the call away.
func (r *rule) reason(f *subject) ambit.Reason {
	name := f.call.Tool.Name
	switch r.kind {
	case denies:
		return ambit.Reason{Code: CodeDenied, Text: "the tool " + name + " is denied", Remedy: "remove deny from " + r.label + " and deploy again"}
	case scopes:
		return ambit.Reason{
			Code: CodeScope, Text: "the argument " + strconv.QuoteToASCII(r.scopes[0].name) + " is not one of the values that the rule names",
			Remedy: "add the value to the scope of " + r.label + " if the agent may, and deploy again",
		}
	case limits:
		return r.limitReason(f)
	case role:
		return ambit.Reason{
			Code: CodeRole, Text: "an agent in this role does not do that (" + r.label + ")",
			Remedy: "if it may with this tool, add widen: [" + r.effect + "] to the tool's entry under tools, and deploy again",
		}
	case asks:
		return ambit.Reason{Code: CodeApproval, Text: r.askText(f)}
	}
	text := "the operator's own policy forbids it"
	if r.why != "" {
		text = r.why
	}
	return ambit.Reason{Code: CodeCedar, Text: text, Remedy: "change " + r.label + " and deploy again"}
}

// priceProblem says why an amount cannot be held against one of a currency; ""
// if it can.
func priceProblem(f *subject, currency string) string {
	switch {
	case !f.priced:
		return "the call does not say how much money, and in what currency"
	case f.price.Currency != currency:
		return "the call is in " + f.price.Currency + " and the rule in " + currency + ", which are not compared"
	}
	return ""
}

func (r *rule) limitReason(f *subject) ambit.Reason {
	l := r.limit
	if l.Price == nil {
		return ambit.Reason{
			Code: CodeLimit, Text: "there are " + strconv.Itoa(l.Calls) + " calls allowed within " + span(l.Window) + ", and this would be one more",
			Remedy: "wait, or raise the limit in " + r.label + " and deploy again",
		}
	}
	if problem := priceProblem(f, l.Price.Currency); problem != "" {
		return ambit.Reason{Code: CodeUnmeasured, Text: problem, Remedy: "the call must say an amount in " + l.Price.Currency}
	}
	if l.Window == 0 {
		return ambit.Reason{
			Code: CodeLimit, Text: f.price.String() + " is more than the " + l.Price.String() + " that one call may have",
			Remedy: "raise the limit in " + r.label + " and deploy again",
		}
	}
	sum := money.Price{Amount: f.totals[r.meter].Add(f.draw(r.meter.Series)), Currency: l.Price.Currency}
	return ambit.Reason{
		Code: CodeLimit, Text: "with this call it would be " + sum.String() + " within " + span(l.Window) + ", more than " + l.Price.String(),
		Remedy: "wait, or raise the limit in " + r.label + " and deploy again",
	}
}

// span writes "1h" and "24h".
func span(d time.Duration) string {
	if d%time.Hour == 0 {
		return strconv.Itoa(int(d/time.Hour)) + "h"
	}
	return d.String()
}

func (r *rule) askText(f *subject) string {
	switch {
	case r.why != "":
		return r.why
	case r.above != nil:
		if problem := priceProblem(f, r.above.Currency); problem != "" {
			return problem
		}
		return f.price.String() + " is more than " + r.above.String()
	case r.count > 0 && !f.counted:
		return "the call does not say about how many things it is"
	case r.count > 0:
		return "it is about " + strconv.FormatInt(f.count, 10) + " things, more than " + strconv.Itoa(r.count)
	}
	return "the operator wants a person to agree to each of these calls"
}
