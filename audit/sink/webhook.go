package sink

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"ambit/audit/sink/outputs"
	"ambit/internal/secretbytes"
)

// webhook posts batches as https://www.standardwebhooks.com says. The receiver
// has a batch when it answers 2xx.
type webhook struct {
	encoder
	*web
	sink, url string
	keys      []secretbytes.Bytes
	now       func() time.Time
}

func newWebhook(c *outputs.Sink, version string) (*webhook, error) {
	secret, err := outputs.ReadSecret(c.SecretFile)
	if err != nil {
		return nil, err
	}
	keys, err := webhookKeys(secret)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.SecretFile, err)
	}
	w, err := newWeb(c.TLS, append(keys, secret)...)
	if err != nil {
		return nil, err
	}
	return &webhook{encoder: encoder{c.OCSF, version}, web: w, sink: c.Name, url: c.URL, keys: keys, now: time.Now}, nil
}

// webhookKeys takes the keys out of the secrets, one a line: while one replaces
// another there are two, and messages carry a signature for each.
func webhookKeys(secret secretbytes.Bytes) ([]secretbytes.Bytes, error) {
	var keys []secretbytes.Bytes
	for i, line := range strings.Split(string(secret.Reveal()), "\n") {
		text, ok := strings.CutPrefix(strings.TrimSpace(line), "whsec_")
		key, err := base64.StdEncoding.DecodeString(text)
		switch {
		case !ok:
			return nil, fmt.Errorf("line %d does not begin with whsec_", i+1)
		case err != nil:
			return nil, fmt.Errorf("line %d is not base64 behind whsec_", i+1)
		case len(key) < 24 || len(key) > 64:
			return nil, fmt.Errorf("line %d has a key of %d bytes, not of 24 to 64", i+1, len(key))
		case i == 4:
			return nil, fmt.Errorf("it has more than 4 secrets")
		}
		keys = append(keys, secretbytes.New(key))
	}
	return keys, nil
}

// signWebhook returns the header fields of a message for Standard Webhooks: its name,
// which stays the same however often it is sent, the time of this attempt, and a
// signature for each key.
func signWebhook(id string, at time.Time, body []byte, keys []secretbytes.Bytes) http.Header {
	seconds := strconv.FormatInt(at.Unix(), 10)
	signatures := make([]string, len(keys))
	for i, key := range keys {
		mac := hmac.New(sha256.New, key.Reveal())
		fmt.Fprintf(mac, "%s.%s.", id, seconds)
		mac.Write(body)
		signatures[i] = "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
	}
	return http.Header{"Webhook-Id": {id}, "Webhook-Timestamp": {seconds}, "Webhook-Signature": {strings.Join(signatures, " ")}, "Content-Type": {"application/json"}}
}

// messageID is the same for the same events of the same log.
func messageID(sink string, b Batch) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\n%s\n%d\n%d\n%d\n", sink, b.Log.Name, b.First(), b.Last(), len(b.Events)))
	return "msg_" + hex.EncodeToString(sum[:16])
}

// Deliver implements Receiver.
func (w *webhook) Deliver(ctx context.Context, b Batch) ([]Rejection, error) {
	body, err := w.body(b)
	if err != nil {
		return nil, err
	}
	a, err := w.send(ctx, http.MethodPost, w.url, signWebhook(messageID(w.sink, b), w.now(), body, w.keys), body)
	switch {
	case err != nil:
		return nil, err
	case a.status == http.StatusRequestEntityTooLarge && len(b.Events) > 1:
		deliver := func(part Batch) ([]Rejection, error) { return w.Deliver(ctx, part) }
		return halves(b, deliver, deliver)
	case !a.good():
		return nil, w.refused(a)
	}
	return nil, nil
}

func (w *webhook) body(b Batch) ([]byte, error) {
	body := append([]byte(`{"type":"ambit.audit.events","timestamp":`), quoted(b.Events[0].Time.UTC().Format(time.RFC3339Nano))...)
	body = append(append(body, `,"data":{"log":`...), quoted(b.Log.Name)...)
	body = append(body, `,"events":[`...)
	var err error
	for i := range b.Events {
		if i > 0 {
			body = append(body, ',')
		}
		if body, err = w.append(body, b.Log, &b.Events[i]); err != nil {
			return nil, err
		}
	}
	return append(body, "]}}"...), nil
}

// Close implements Receiver.
func (w *webhook) Close() error { return w.close() }
