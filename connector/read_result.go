package connector

import (
	"net/http"
	"slices"
	"strings"

	"ambit/internal/strictyaml"
)

func resultKeys() []string {
	return []string{"status", "ok", "error", "from", "keep", "records", "decode", "maxBytes", "maxText"}
}

func (r *toolReader) result(n node) {
	q := &r.tool.result
	q.max, q.maxText, q.kept = defaultResult, defaultText, keepTree(nil)
	if !n.Given() {
		return
	}
	f := r.Fields(n, resultKeys())
	r.List(f["status"], func(_ int, item node) { q.status = append(q.status, r.Integer(item, 100, 599, 0)) })
	r.NotEmpty(f["status"])
	for i, s := range q.status {
		if s != 0 && (s < http.StatusOK || s > 299) {
			r.Refuse(f["status"].Item(i), "is not the status of a success", "write for example [200, 201]")
		}
	}
	q.ok = r.Checked(f["ok"], "", checkPointer)
	q.failure = r.Checked(f["error"], "", checkPointer)
	q.from = r.Checked(f["from"], "", checkPointer)
	q.keep = r.Texts(f["keep"], checkPointer)
	q.kept = keepTree(q.keep)
	r.NotEmpty(f["keep"])
	q.records, q.decode = r.within(f["records"], q.keep), r.within(f["decode"], q.keep)
	for i, p := range q.records {
		if p != "" && slices.ContainsFunc(q.decode, func(d string) bool { return d == p || strings.HasPrefix(d, p+"/") || strings.HasPrefix(p, d+"/") }) {
			r.Refuse(f["records"].Item(i), "is decoded, and so is not a record", "remove it here")
		}
	}
	q.max = r.Integer(f["maxBytes"], 1024, 1<<20, defaultResult)
	q.maxText = r.Integer(f["maxText"], leastText, 1<<20, defaultText)
}

// within reads pointers into what is kept.
func (r *toolReader) within(n node, keep []string) []string {
	all := r.Texts(n, checkPointer)
	for i, p := range all {
		if p != "" && !covered(p, keep) {
			r.Refuse(n.Item(i), strictyaml.Quote(p)+" is not kept", "add it to keep, or remove it here")
		}
	}
	r.NotEmpty(n)
	return all
}
