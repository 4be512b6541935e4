package audit

import (
	"bytes"
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"pgregory.net/rapid"

	"ambit"
)

func jsonBody(t interface{ Fatal(...any) }, e *ambit.Event) string {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(e); err != nil {
		t.Fatal(err)
	}
	return string(bytes.TrimSuffix(buf.Bytes(), []byte("\n")))
}

// A body is what encoding/json makes of the event, whatever is in it.
func TestBodyAgainstJSON(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		text := func(name string) string {
			if rapid.Bool().Draw(rt, name+" of bytes") {
				return string(rapid.SliceOf(rapid.Byte()).Draw(rt, name))
			}
			return rapid.String().Draw(rt, name)
		}
		e := ambit.Event{
			Seq: rapid.Uint64().Draw(rt, "seq"), Time: time.UnixMicro(rapid.Int64Range(0, 253402300799999999).Draw(rt, "time")).UTC(),
			Kind: ambit.Kind(text("kind")), Agent: ambit.AgentID(text("agent")), Principal: ambit.Principal(text("principal")),
			Action: ambit.Action(text("action")), Method: text("method"), Host: text("host"), URL: text("url"), Intent: text("intent"),
			Decision: ambit.Decision(rapid.Uint8().Draw(rt, "decision")), Rule: text("rule"), Status: rapid.Int().Draw(rt, "status"),
			BytesOut: rapid.Int64().Draw(rt, "out"), BytesIn: rapid.Int64().Draw(rt, "in"), Duration: time.Duration(rapid.Int64().Draw(rt, "duration")),
			Severity: ambit.Severity(rapid.Uint8().Draw(rt, "severity")), Connection: text("connection"), Detail: text("detail"),
			V: rapid.Int().Draw(rt, "v"), Task: text("task"), Tool: text("tool"), Resource: text("resource"), More: rapid.Int().Draw(rt, "more"), Unseen: rapid.Bool().Draw(rt, "unseen"),
		}
		for range rapid.IntRange(0, 3).Draw(rt, "lists") {
			e.Effects = append(e.Effects, ambit.Effect(text("effect")))
			e.Subjects = append(e.Subjects, text("subject"))
			e.Provenance = append(e.Provenance, ambit.Provenance{Value: text("value"), Source: text("source"), Event: rapid.Uint64().Draw(rt, "event")})
			e.Links = append(e.Links, ambit.Link{Rel: text("rel"), Log: ambit.AgentID(text("log")), Seq: rapid.Uint64().Draw(rt, "link")})
		}
		if rapid.Bool().Draw(rt, "has erasure") {
			e.Erasure = &ambit.Erasure{Rule: text("why"), Ranges: [][2]uint64{{1, rapid.Uint64().Draw(rt, "to")}}, Subject: text("whom")}
		}
		if rapid.Bool().Draw(rt, "has of") {
			of := rapid.Uint64().Draw(rt, "of")
			e.Of = &of
		}
		if rapid.Bool().Draw(rt, "has reason") {
			e.Reason = &ambit.Reason{Code: text("code"), Text: text("text"), Remedy: text("remedy")}
		}
		got, err := appendBody(nil, &e)
		if want := jsonBody(rt, &e); err != nil || string(got) != want {
			rt.Fatalf("%s, %v\nwant %s", got, err, want)
		}
	})
}

// Every field of an event and of a reason is in the body, those of a later
// version too.
func TestBodyHasEveryField(t *testing.T) {
	fill := func(v reflect.Value) {
		switch {
		case v.CanInt():
			v.SetInt(1)
		case v.CanUint():
			v.SetUint(1)
		case v.Kind() == reflect.String:
			v.SetString("x")
		case v.Kind() == reflect.Bool:
			v.SetBool(true)
		case v.Kind() == reflect.Pointer:
			v.Set(reflect.New(v.Type().Elem()))
		case v.Kind() == reflect.Slice:
			v.Set(reflect.MakeSlice(v.Type(), 2, 2))
			if v.Type().Elem().Kind() == reflect.String {
				v.Index(0).SetString("x")
			}
		case v.Type() == reflect.TypeFor[time.Time]():
			v.Set(reflect.ValueOf(time.UnixMicro(1).UTC()))
		default:
			t.Fatalf("a field of type %v: teach appendBody and this test", v.Type())
		}
	}
	var e ambit.Event
	r := new(ambit.Reason)
	for _, v := range []reflect.Value{reflect.ValueOf(r).Elem(), reflect.ValueOf(&e).Elem()} {
		for i := range v.NumField() {
			fill(v.Field(i))
		}
	}
	e.Reason = r
	got, err := appendBody(nil, &e)
	if want := jsonBody(t, &e); err != nil || string(got) != want {
		t.Errorf("%s, %v\nwant %s", got, err, want)
	}
}
