package server

import (
	"encoding/json"
	"net/http"
	"os"
	"strings"
	"testing"

	"ambit"
	"ambit/api"
	"ambit/control"
)

// serveTools is a worker's side of the wire: it says back what it was told.
func serveTools(mux *http.ServeMux) {
	mux.HandleFunc("GET "+control.PathTools, func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(control.Tools{Tools: []control.Tool{{Name: "crm.get", State: control.ToolNew, Input: json.RawMessage(`{"type":"object"}`), Description: "<b>\u0007&"}}, Servers: []control.ToolServer{}})
	})
	judge := func(state control.ToolState) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			var q control.JudgeTool
			err := json.NewDecoder(r.Body).Decode(&q)
			if err != nil || strings.HasPrefix(q.Hash, "0") {
				http.Error(w, "look again", http.StatusConflict)
				return
			}
			_ = json.NewEncoder(w).Encode(control.Tool{Name: q.Name, Hash: q.Hash, State: state, JudgedBy: q.By, ToolFacts: q.Facts})
		}
	}
	mux.HandleFunc("POST "+control.PathToolAccept, judge(control.ToolReady))
	mux.HandleFunc("POST "+control.PathToolReject, judge(control.ToolRejected))
}

// A person judges a tool under the name that the kernel says, whatever they say.
func TestToolsOverTheAPI(t *testing.T) {
	f := serve(t, "")
	f.deploy(t, support)
	all, err := f.client.Tools(t.Context(), "support")
	if err != nil || len(all.Tools) != 1 || all.Tools[0].Description != "<b>\u0007&" || string(all.Tools[0].Input) != `{"type":"object"}` {
		t.Fatalf("%+v, %v", all, err)
	}
	j := api.JudgeTool{Name: "crm.get", Hash: strings.Repeat("1", 64), Accept: true, Facts: control.ToolFacts{Effects: []ambit.Effect{"spend"}, Records: []string{""}}}
	got, err := f.client.JudgeTool(t.Context(), "support", j)
	if err != nil || got.State != control.ToolReady || got.JudgedBy != principalOf(os.Geteuid()) || got.Hash != j.Hash || len(got.Effects) != 1 || len(got.Records) != 1 {
		t.Errorf("%+v, %v", got, err)
	}
	j.Accept = false
	if got, err = f.client.JudgeTool(t.Context(), "support", j); err != nil || got.State != control.ToolRejected {
		t.Errorf("%+v, %v", got, err)
	}
	j.Hash = strings.Repeat("0", 64)
	if _, err = f.client.JudgeTool(t.Context(), "support", j); problemFrom(err) == nil || problemFrom(err).Status != http.StatusConflict {
		t.Error(err)
	}
	if _, err = f.client.Tools(t.Context(), "nobody"); problemFrom(err) == nil || problemFrom(err).Status != http.StatusNotFound {
		t.Error(err)
	}
}
