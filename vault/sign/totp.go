package sign

import (
	"crypto/hmac"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"ambit/internal/secretbytes"
)

// TOTP makes one-time codes (RFC 6238). The zero value makes none.
type TOTP struct {
	seed      secretbytes.Bytes
	algorithm string // as HMAC's
	digits    int
	period    int64 // seconds
}

// ParseTOTP reads a seed: base32 as services show it (case, spaces, hyphens and
// padding do not matter), which means SHA-1, six digits and 30 seconds; or the
// otpauth:// URI of the QR code, which may say SHA256 or SHA512, six to eight
// digits and another period. Seeds are 80 to 1024 bits. Whatever is wrong is
// ErrKey.
func ParseTOTP(seed secretbytes.Bytes) (TOTP, error) {
	t := TOTP{algorithm: "sha1", digits: 6, period: 30}
	text := strings.TrimSpace(string(seed.Reveal()))
	if strings.Contains(text, ":") {
		u, err := url.Parse(text)
		if err != nil || u.Scheme != "otpauth" || u.Host != "totp" {
			return TOTP{}, fmt.Errorf("%w: it is neither a seed in base32 nor an otpauth://totp/ address", ErrKey)
		}
		q, err := url.ParseQuery(u.RawQuery)
		if err != nil {
			return TOTP{}, fmt.Errorf("%w: the otpauth address cannot be parsed", ErrKey)
		}
		if err := t.options(q); err != nil {
			return TOTP{}, err
		}
		text = q.Get("secret")
	}
	text = strings.TrimRight(strings.ToUpper(strings.NewReplacer(" ", "", "-", "").Replace(text)), "=")
	raw, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(text)
	if err != nil {
		return TOTP{}, fmt.Errorf("%w: the seed is not base32 (A to Z and 2 to 7)", ErrKey)
	}
	if len(raw) < 10 || len(raw) > 128 {
		return TOTP{}, fmt.Errorf("%w: the seed has %d bytes, not 10 to 128", ErrKey, len(raw))
	}
	t.seed = secretbytes.New(raw)
	return t, nil
}

func (t *TOTP) options(q url.Values) error {
	for name, values := range q {
		if len(values) != 1 {
			return fmt.Errorf("%w: the otpauth address has %.20q twice", ErrKey, name)
		}
	}
	if a := q.Get("algorithm"); a != "" {
		t.algorithm = strings.ToLower(a)
	}
	digits, period := q.Get("digits"), q.Get("period")
	var err error
	if digits != "" {
		if t.digits, err = strconv.Atoi(digits); err != nil {
			t.digits = 0
		}
	}
	if period != "" {
		if t.period, err = strconv.ParseInt(period, 10, 16); err != nil {
			t.period = 0
		}
	}
	if (HMAC{Algorithm: t.algorithm}).hash() == nil || t.digits < 6 || t.digits > 8 || t.period < 10 || t.period > 300 {
		return fmt.Errorf("%w: the otpauth address does not say SHA1, SHA256 or SHA512, 6 to 8 digits, and a period of 10 to 300 seconds", ErrKey)
	}
	return nil
}

// Code is the code at the time now; the zero TOTP has none and returns ErrKey.
func (t TOTP) Code(now time.Time) (secretbytes.Bytes, error) {
	if t.seed.Len() == 0 || t.period <= 0 {
		return secretbytes.Bytes{}, fmt.Errorf("%w: there is no seed", ErrKey)
	}
	m := hmac.New(HMAC{Algorithm: t.algorithm}.hash(), t.seed.Reveal())
	m.Write(binary.BigEndian.AppendUint64(nil, uint64(now.Unix()/t.period)))
	sum := m.Sum(nil)
	n := binary.BigEndian.Uint32(sum[sum[len(sum)-1]&15:]) & 0x7fffffff // RFC 4226 section 5.3
	return secretbytes.New([]byte(fmt.Sprintf("%010d", n)[10-t.digits:])), nil
}

// Wipe overwrites the seed.
func (t TOTP) Wipe() { t.seed.Wipe() }
