package server

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"ambit"
	"ambit/api"
	"ambit/audit"
)

const shopSupport = "ambit: v1\nname: support\nconnectors:\n  - {name: shopify, account: demo, tools: [orders.get, orders.cancel]}\n"

// TestWideningIsShownFirst: a manifest by which calls of the last week would newly
// pass changes nothing until a person says that this is meant.
func TestWideningIsShownFirst(t *testing.T) {
	f := serve(t, "")
	f.deploy(t, shopSupport)
	for i, call := range []struct{ tool, args string }{
		{"shopify.orders.cancel", `{"order_id":1001}`}, // deletes, and a customer notices it: people are asked
		{"shopify.orders.get", `{"order_id":1001}`},
		{"shopify.orders.gone", `{"order_id":1001}`},
		{"shopify.orders.cancel", `{"order_id":1001,"note":"<too long to be kept`},
	} {
		f.past = append(f.past, audit.Touch{Event: ambit.Event{Seq: uint64(i), Kind: ambit.KindToolCall, Tool: call.tool, Resource: call.args, Principal: ambit.PrincipalAgent}})
	}
	f.history()
	wider := shopSupport + "approvals:\n  - {tool: shopify.orders.cancel, ask: nobody}\n"
	_, err := f.client.Deploy(t.Context(), api.Deploy{Manifest: wider})
	var p *api.Problem
	if !errors.As(err, &p) || p.Status != http.StatusConflict || len(p.Errors) != 1 || !strings.Contains(p.Errors[0].Message, `event 0, `) ||
		!strings.Contains(p.Errors[0].Message, `shopify.orders.cancel {"order_id":1001}: ask`) || !strings.Contains(p.Detail, "--widen") {
		t.Fatalf("%v: %+v", err, p)
	}
	if did := f.history(); did != "" {
		t.Errorf("it did %q", did)
	}
	if v, err := f.client.Versions(t.Context(), "support"); err != nil || len(v) != 1 {
		t.Errorf("%+v, %v", v, err)
	}
	if d, err := f.client.Deploy(t.Context(), api.Deploy{Manifest: wider, Widen: true}); err != nil || d.Version.N != 2 {
		t.Errorf("%+v, %v", d, err)
	}
	if d := f.deploy(t, shopSupport+"description: narrower again\n"); d.Version.N != 3 {
		t.Errorf("what takes away: %+v", d)
	}
	if _, err := f.client.Redeploy(t.Context(), "support", 2, false); !errors.As(err, &p) || p.Status != http.StatusConflict {
		t.Errorf("an old version that is wider: %v", err)
	}
	if d, err := f.client.Redeploy(t.Context(), "support", 2, true); err != nil || d.Version.N != 4 {
		t.Errorf("%+v, %v", d, err)
	}
}

// TestToolsThatThereAreNot: a mistake in a tool's name is said when it is deployed.
func TestToolsThatThereAreNot(t *testing.T) {
	f := serve(t, "")
	d := f.deploy(t, shopSupport+"tools:\n  - {tool: shopify.orders.git}\n")
	if len(d.Warnings) != 1 || !strings.Contains(d.Warnings[0], "shopify.orders.git") {
		t.Errorf("%q", d.Warnings)
	}
}
