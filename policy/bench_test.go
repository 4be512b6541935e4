package policy_test

import (
	"fmt"
	"testing"

	"ambit"
	"ambit/policy"
)

// BenchmarkDecide shows that the number of rules does not show: rules for as
// many hosts, wildcards, and paths of one host.
func BenchmarkDecide(b *testing.B) {
	for _, n := range []int{10, 1_000, 100_000} {
		for _, kind := range []struct {
			name string
			rule func(i int) policy.Rule
		}{
			{"hosts", func(i int) policy.Rule {
				return policy.Rule{Host: fmt.Sprintf("h%d.shop.example", i), Methods: []string{"GET"}, Paths: []string{"/v1/orders/**"}}
			}},
			{"wildcards", func(i int) policy.Rule {
				return policy.Rule{Host: fmt.Sprintf("*.h%d.shop.example", i), Methods: []string{"GET"}, Paths: []string{"/v1/orders/**"}}
			}},
			{"paths", func(i int) policy.Rule {
				return policy.Rule{Host: "x.h7.shop.example", Methods: []string{"GET"}, Paths: []string{fmt.Sprintf("/v1/p%d/*", i), "/v1/orders/" + fmt.Sprint(i)}}
			}},
		} {
			e := policy.Egress{}
			for i := range n {
				e.Rules = append(e.Rules, kind.rule(i))
			}
			s, err := policy.Compile(e)
			if err != nil {
				b.Fatal(err)
			}
			host := map[string]string{"hosts": "h7.shop.example"}[kind.name]
			if host == "" {
				host = "x.h7.shop.example"
			}
			for name, r := range map[string]*ambit.Request{"allow": get(host, 443, "/v1/orders/7"), "deny": get(host, 443, "/v2/orders/7")} {
				b.Run(fmt.Sprintf("%s/%d/%s", kind.name, n, name), func(b *testing.B) {
					b.ReportAllocs()
					for b.Loop() {
						if v := s.Decide(r); (v.Decision == ambit.Allow) != (name == "allow") {
							b.Fatalf("%+v", v)
						}
					}
				})
			}
		}
	}
}

func BenchmarkCompile(b *testing.B) {
	e := policy.Egress{}
	for i := range 100_000 {
		e.Rules = append(e.Rules, policy.Rule{Host: fmt.Sprintf("h%d.shop.example", i), Methods: []string{"GET"}, Paths: []string{"/v1/orders/**"}})
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := policy.Compile(e); err != nil {
			b.Fatal(err)
		}
	}
}
