package policy_test

import (
	"fmt"

	"ambit"
	"ambit/policy"
)

func Example() {
	set, err := policy.Compile(policy.Egress{Rules: []policy.Rule{{
		Label:   "egress.allow[0] (line 14)",
		Host:    "api.tracking.example",
		Methods: []string{"GET"},
		Paths:   []string{"/v1/track/**"},
	}}})
	if err != nil {
		fmt.Println(err)
		return
	}
	r := &ambit.Request{Action: ambit.ActionHTTP, Scheme: "https", Method: "GET", Host: "api.tracking.example", Port: 443, Path: "/v1/track/42"}
	v := set.Decide(r)
	fmt.Println(v.Decision, "by", v.Rule)

	r.Method = "DELETE"
	v = set.Decide(r)
	fmt.Println(v.Decision, v.Reason.Code)
	fmt.Println(v.Reason.Text)
	fmt.Println(v.Reason.Remedy)
	// Output:
	// allow by egress.allow[0] (line 14)
	// deny method-not-allowed
	// no rule allows DELETE /v1/track/42 on api.tracking.example
	// add {host: api.tracking.example, methods: [DELETE], paths: [/v1/track/42]} under egress.allow and deploy again
}
