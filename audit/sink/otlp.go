package sink

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	logsservice "go.opentelemetry.io/proto/slim/otlp/collector/logs/v1"
	common "go.opentelemetry.io/proto/slim/otlp/common/v1"
	logs "go.opentelemetry.io/proto/slim/otlp/logs/v1"
	resource "go.opentelemetry.io/proto/slim/otlp/resource/v1"
	"google.golang.org/protobuf/proto"

	"ambit"
	"ambit/audit/sink/format"
	"ambit/audit/sink/outputs"
	"ambit/internal/secretbytes"
)

// otlp posts batches as OpenTelemetry log records, in protobuf over HTTP with gzip:
// https://opentelemetry.io/docs/specs/otlp/. The receiver has a batch when it
// answers 200. Records that it then says it rejected are reported, and are not sent
// again: the specification forbids it, and does not say which they were.
type otlp struct {
	encoder
	*web
	url, field string
	secret     secretbytes.Bytes // the value of the field; empty without one
}

func newOTLP(c *outputs.Sink, version string) (*otlp, error) {
	o := &otlp{encoder: encoder{c.OCSF, version}, url: c.URL, field: c.Header}
	var err error
	if c.SecretFile != "" {
		if o.secret, err = outputs.ReadSecret(c.SecretFile); err != nil {
			return nil, err
		}
		if bytes.ContainsRune(o.secret.Reveal(), '\n') {
			return nil, fmt.Errorf("%s has more than one line, and a header field is one", c.SecretFile)
		}
	}
	// "Bearer x": also x by itself is the secret
	secrets := []secretbytes.Bytes{o.secret}
	if _, token, ok := bytes.Cut(o.secret.Reveal(), []byte(" ")); ok {
		secrets = append(secrets, secretbytes.New(bytes.Clone(token)))
	}
	o.web, err = newWeb(c.TLS, secrets...)
	return o, err
}

// Deliver implements Receiver.
func (o *otlp) Deliver(ctx context.Context, b Batch) ([]Rejection, error) {
	body, err := o.body(b)
	if err != nil {
		return nil, err
	}
	header := http.Header{"Content-Type": {"application/x-protobuf"}, "Content-Encoding": {"gzip"}}
	if o.secret.Len() > 0 {
		header.Set(o.field, string(o.secret.Reveal()))
	}
	a, err := o.send(ctx, http.MethodPost, o.url, header, body)
	switch {
	case err != nil:
		return nil, err
	case a.status == http.StatusRequestEntityTooLarge && len(b.Events) > 1:
		deliver := func(part Batch) ([]Rejection, error) { return o.Deliver(ctx, part) }
		return halves(b, deliver, deliver)
	case a.status != http.StatusOK:
		return nil, o.failure(a)
	}
	var said logsservice.ExportLogsServiceResponse
	if !a.whole {
		return nil, fmt.Errorf("the receiver answered 200 with more than %d bytes, which is no answer of OTLP", maxAnswer)
	}
	if err := proto.Unmarshal(a.body, &said); err != nil {
		return nil, fmt.Errorf("the receiver answered 200 with what is no answer of OTLP: %s", o.clean(string(a.body)))
	}
	partial := said.GetPartialSuccess()
	if partial.GetRejectedLogRecords() <= 0 {
		return nil, nil
	}
	why := fmt.Sprintf("%d of the %d records from %d to %d were rejected: %s", partial.GetRejectedLogRecords(), len(b.Events), b.First(), b.Last(), o.clean(partial.GetErrorMessage()))
	var all []Rejection
	for i := range min(partial.GetRejectedLogRecords(), int64(len(b.Events))) {
		all = append(all, Rejection{b.Log.Name, b.Events[i].Seq, why})
	}
	return all, nil
}

// failure reads the text out of an error, which is a google.rpc.Status: its field 2.
func (o *otlp) failure(a *answer) error {
	var status logsservice.ExportLogsPartialSuccess // has text in the same field
	if proto.Unmarshal(a.body, &status) == nil && status.GetErrorMessage() != "" {
		a.body = []byte(status.GetErrorMessage())
	}
	return o.refused(a)
}

// body makes the request.
func (o *otlp) body(b Batch) ([]byte, error) {
	records := make([]*logs.LogRecord, len(b.Events))
	for i := range b.Events {
		var err error
		if records[i], err = o.record(b.Log, &b.Events[i]); err != nil {
			return nil, err
		}
	}
	request := &logsservice.ExportLogsServiceRequest{ResourceLogs: []*logs.ResourceLogs{{
		Resource:  &resource.Resource{Attributes: []*common.KeyValue{text("service.name", "ambit"), text("service.version", o.version), text("ambit.log", b.Log.Name)}},
		ScopeLogs: []*logs.ScopeLogs{{Scope: &common.InstrumentationScope{Name: "ambit/audit"}, LogRecords: records}},
	}}}
	plain, err := proto.Marshal(request)
	if err != nil {
		return nil, fmt.Errorf("writing events as OTLP: %w", err)
	}
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	if _, err := z.Write(plain); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// record is one event: the whole of it as text in the body, and what one filters
// by as attributes, under the names of the semantic conventions where there are
// some.
func (o *otlp) record(log Log, e *ambit.Event) (*logs.LogRecord, error) {
	line, err := o.append(nil, log, e)
	if err != nil {
		return nil, err
	}
	severity := format.Severity(e)
	number := [...]logs.SeverityNumber{logs.SeverityNumber_SEVERITY_NUMBER_INFO, logs.SeverityNumber_SEVERITY_NUMBER_INFO2, logs.SeverityNumber_SEVERITY_NUMBER_WARN,
		logs.SeverityNumber_SEVERITY_NUMBER_ERROR, logs.SeverityNumber_SEVERITY_NUMBER_FATAL}[severity]
	r := &logs.LogRecord{
		TimeUnixNano: uint64(e.Time.UnixNano()), ObservedTimeUnixNano: uint64(e.Time.UnixNano()), SeverityNumber: number, SeverityText: severity.String(),
		EventName: strings.ToValidUTF8(string(e.Kind), "\uFFFD"), Body: &common.AnyValue{Value: &common.AnyValue_StringValue{StringValue: string(line)}},
		Attributes: []*common.KeyValue{
			text("log.record.uid", format.UID(log.Name, e.Seq)), number64("ambit.seq", int64(e.Seq)), text("ambit.decision", e.Decision.String()), text("ambit.principal", string(e.Principal)),
		},
	}
	for _, more := range []struct{ name, value string }{
		{"ambit.agent", string(e.Agent)}, {"ambit.rule", e.Rule}, {"ambit.connection", e.Connection}, {"http.request.method", e.Method}, {"server.address", e.Host}, {"url.full", e.URL},
	} {
		if more.value != "" {
			r.Attributes = append(r.Attributes, text(more.name, more.value))
		}
	}
	if e.Kind == ambit.KindEgressOutcome && e.Status != 0 {
		r.Attributes = append(r.Attributes, number64("http.response.status_code", int64(e.Status)))
	}
	if e.Duration != 0 {
		r.Attributes = append(r.Attributes, number64("ambit.duration_ms", int64(e.Duration/time.Millisecond)))
	}
	return r, nil
}

// text is an attribute. Protobuf takes UTF-8 only.
func text(name, value string) *common.KeyValue {
	return &common.KeyValue{Key: name, Value: &common.AnyValue{Value: &common.AnyValue_StringValue{StringValue: strings.ToValidUTF8(value, "\uFFFD")}}}
}

func number64(name string, value int64) *common.KeyValue {
	return &common.KeyValue{Key: name, Value: &common.AnyValue{Value: &common.AnyValue_IntValue{IntValue: value}}}
}

// Close implements Receiver.
func (o *otlp) Close() error { return o.close() }
