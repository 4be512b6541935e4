package notify

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"ambit/audit/sink/outputs"
	"ambit/internal/inert"
	"ambit/internal/secretbytes"
)

// hook delivers by webhook. The receiver has a message when it answers 2xx.
type hook struct {
	url, secretFile, agent string
	client                 *http.Client
}

func newHook(c *Config, conf *tls.Config, version string) *hook {
	return &hook{
		url: c.URL, secretFile: c.SecretFile, agent: "Ambit/" + version,
		client: &http.Client{
			Transport: &http.Transport{
				Proxy: http.ProxyFromEnvironment, TLSClientConfig: conf, ForceAttemptHTTP2: true,
				TLSHandshakeTimeout: 10 * time.Second, IdleConnTimeout: time.Minute, MaxResponseHeaderBytes: 64 << 10,
			},
			// A signed message is for the URL that it was made for.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// keys reads the keys that sign, one a line: while one replaces another there
// are two.
func (h *hook) keys() ([]secretbytes.Bytes, error) {
	secret, err := outputs.ReadSecret(h.secretFile)
	if err != nil {
		return nil, err
	}
	defer secret.Wipe()
	var keys []secretbytes.Bytes
	for i, text := range bytes.Split(secret.Reveal(), []byte("\n")) {
		text, ok := bytes.CutPrefix(bytes.TrimSpace(text), []byte("whsec_"))
		key, err := base64.StdEncoding.AppendDecode(nil, text)
		switch {
		case !ok:
			return nil, fmt.Errorf("line %d of %s does not begin with whsec_", i+1, h.secretFile)
		case err != nil:
			return nil, fmt.Errorf("line %d of %s is not base64 behind whsec_", i+1, h.secretFile)
		case len(key) < 24 || len(key) > 64:
			return nil, fmt.Errorf("line %d of %s has a key of %d bytes, not of 24 to 64", i+1, h.secretFile, len(key))
		case i == 4:
			return nil, fmt.Errorf("%s has more than 4 secrets", h.secretFile)
		}
		keys = append(keys, secretbytes.New(key))
	}
	return keys, nil
}

// sign is the signature field of a message: https://www.standardwebhooks.com.
func sign(id, seconds string, body []byte, keys []secretbytes.Bytes) string {
	signatures := make([]string, len(keys))
	for i, key := range keys {
		mac := hmac.New(sha256.New, key.Reveal())
		fmt.Fprintf(mac, "%s.%s.", id, seconds)
		mac.Write(body)
		signatures[i] = "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
	}
	return strings.Join(signatures, " ")
}

func (h *hook) deliver(ctx context.Context, m *message) error {
	keys, err := h.keys()
	if err != nil {
		return err
	}
	defer func() {
		for _, k := range keys {
			k.Wipe()
		}
	}()
	body, err := m.body()
	if err != nil {
		return fmt.Errorf("writing the message: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, h.url, bytes.NewReader(body))
	if err != nil {
		return errors.New("the URL cannot be used") // not err, which has it
	}
	seconds := strconv.FormatInt(time.Now().Unix(), 10)
	req.Header = http.Header{
		"Content-Type": {"application/json"}, "User-Agent": {h.agent},
		"Webhook-Id": {m.id}, "Webhook-Timestamp": {seconds}, "Webhook-Signature": {sign(m.id, seconds, body, keys)},
	}
	res, err := h.client.Do(req)
	if err != nil {
		return withoutURL(err)
	}
	defer func() { _ = res.Body.Close() }()
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, 64<<10)) // so that the connection can be used again
	if res.StatusCode/100 != 2 {
		return fmt.Errorf("the webhook answered %d %s", res.StatusCode, http.StatusText(res.StatusCode))
	}
	return nil
}

// withoutURL takes the URL out of an error: it may have a secret in it.
func withoutURL(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	return fmt.Errorf("calling the webhook: %s", inert.Text(err.Error()))
}
