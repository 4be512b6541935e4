//go:build linux

package main

import (
	"strings"
	"testing"

	"ambit/connector"
	"ambit/manifest"
)

func TestVerdicts(t *testing.T) {
	none := row{Unit: "ms", Ours: 5}
	for _, c := range []struct {
		name string
		row  row
		want string
	}{
		{"ratio at the limit", compare("f", "ms", 150, 100).ratioAtMost(1.5), "met"},
		{"ratio above", compare("f", "ms", 151, 100).ratioAtMost(1.5), "missed"},
		{"ratio at the least", compare("f", "req/s", 90, 100).ratioAtLeast(0.9), "met"},
		{"ratio below", compare("f", "req/s", 89, 100).ratioAtLeast(0.9), "missed"},
		{"a reference of nothing", compare("f", "ms", 5, 0).ratioAtMost(1.5), "missed"},
		{"no reference", none.ratioAtMost(1.5), "missed"},
		{"no reference to be more than", none.moreByAtMost(150), "missed"},
		{"more by the limit", compare("f", "µs", 250, 100).moreByAtMost(150), "met"},
		{"more by more", compare("f", "µs", 251, 100).moreByAtMost(150), "missed"},
		{"a value", none.atMost(5), "met"},
		{"a value above", none.atMost(4), "missed"},
		{"no target", none, ""},
	} {
		if c.row.Verdict != c.want {
			t.Errorf("%s: %q, want %q", c.name, c.row.Verdict, c.want)
		}
	}
}

func TestMedian(t *testing.T) {
	for want, v := range map[float64][]float64{3: {9, 1, 3}, 2.5: {4, 1, 2, 3}, 7: {7}} {
		if got := median(v); got != want {
			t.Errorf("median is %v, want %v", got, want)
		}
	}
}

func TestPercentile(t *testing.T) {
	hundred := make([]float64, 100)
	for i := range hundred {
		hundred[i] = float64(100 - i)
	}
	for _, c := range []struct {
		of   []float64
		part float64
		want float64
	}{{hundred, 0.99, 99}, {hundred, 0.5, 50}, {hundred, 1, 100}, {[]float64{7}, 0.99, 7}, {[]float64{1, 2, 3}, 0.99, 3}, {nil, 0.99, 0}} {
		if got := percentile(c.of, c.part); got != c.want {
			t.Errorf("of %d values %v are not above %v, want %v", len(c.of), c.part, got, c.want)
		}
	}
	if hundred[0] != 100 {
		t.Error("percentile changes what it is given")
	}
}

// TestMarkdown: a table whose rows have as many cells as its head.
func TestMarkdown(t *testing.T) {
	r := report{Rows: []row{compare("cold start", "ms", 120, 100).ratioAtMost(1.5), {Figure: "idle", Verdict: "not measured", Note: "why"}}}
	var b strings.Builder
	r.markdown(&b)
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")
	for _, line := range lines[len(lines)-4:] {
		if strings.Count(line, "|") != len(columns)+1 {
			t.Errorf("a row of another width: %s", line)
		}
	}
	if want := "| cold start | 120 ms | 100 ms | 1.20 | ratio ≤ 1.5 | met |  |"; lines[len(lines)-2] != want {
		t.Errorf("got  %s\nwant %s", lines[len(lines)-2], want)
	}
}

// TestManyRules: as many rules as fit make a manifest that is accepted.
func TestManyRules(t *testing.T) {
	_, ca, err := selfSigned(shop)
	if err != nil {
		t.Fatal(err)
	}
	u := &helper{announcement: announcement{Port: 8443, CA: ca}}
	for _, n := range []int{10, 1000, 1 << 30} {
		text, count := manyRules(u, n)
		m, err := manifest.Parse("bench.yaml", []byte(text))
		if err != nil {
			t.Fatalf("%d rules: %v", n, err)
		}
		if len(m.Egress.Allow) != count || n < 1<<30 && count != n {
			t.Errorf("%d rules asked for, %d said, %d in the manifest", n, count, len(m.Egress.Allow))
		}
		if last := m.Egress.Allow[count-1]; last.Host != shop {
			t.Errorf("the last rule is for %s", last.Host)
		}
	}
}

// TestToolManifest: the agent whose tool is called has that tool.
func TestToolManifest(t *testing.T) {
	_, ca, err := selfSigned(shop)
	if err != nil {
		t.Fatal(err)
	}
	m, err := manifest.Parse("bench.yaml", []byte(toolManifest(&helper{announcement: announcement{Port: 8443, CA: ca}})))
	if err != nil {
		t.Fatal(err)
	}
	catalog, err := connector.Builtin()
	if err != nil {
		t.Fatal(err)
	}
	if catalog, err = catalog.WithSources([]connector.Source{{Name: "benchshop.yaml", Text: []byte(benchShop)}}); err != nil {
		t.Fatal(err)
	}
	bound, err := catalog.Bind(m)
	if err != nil || len(bound) != 1 || len(bound[0].Tools()) != 1 || bound[0].Tools()[0].Tool.Name != orderTool {
		t.Errorf("%+v, %v", bound, err)
	}
}

// TestDecider: what is measured is a call that is allowed.
func TestDecider(t *testing.T) {
	for _, n := range []int{10, 1000} {
		decide, err := decider(n)
		if err == nil {
			err = decide()
		}
		if err != nil {
			t.Errorf("with %d rules: %v", n, err)
		}
	}
}
