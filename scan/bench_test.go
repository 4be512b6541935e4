package scan

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// samples are what usually passes, 256 KiB of each.
func samples() map[string][]byte {
	const n = 256 << 10
	r := rand.New(rand.NewPCG(1, 2))
	var customers, html, numbers, prose bytes.Buffer
	for i := 0; customers.Len() < n; i++ {
		j, _ := json.Marshal(map[string]any{
			"id": 207119551 + i, "email": fmt.Sprintf("customer.%d@example.com", i%200), "first_name": "Bob", "last_name": "Norman",
			"orders_count": i % 7, "state": "disabled", "total_spent": "199.65", "last_order_id": 450789469 + i, "note": nil,
			"verified_email": true, "tags": "Léon, Noël, wholesale", "currency": "EUR", "phone": "+13125551212",
			"created_at": "2024-01-02T11:00:00-05:00", "updated_at": "2024-01-02T11:00:00-05:00", "admin_graphql_api_id": "gid://shopify/Customer/207119551",
			"default_address": map[string]any{"address1": "Chestnut Street 92", "city": "Louisville", "zip": "40202", "country": "United States", "default": true},
		})
		customers.Write(j)
		customers.WriteByte(',')
	}
	for html.Len() < n {
		html.WriteString("<div class=\"row item-card\" id=\"item-42\"><a href=\"/products/blue-shirt?variant=12&amp;ref=home\" data-action=\"open\">A blue shirt &ndash; made of cotton</a><span class=\"price\">€ 19.90</span></div>\n")
	}
	for numbers.Len() < n {
		fmt.Fprintf(&numbers, "{\"t\":%d,\"x\":%f,\"y\":%f,\"n\":%d},", 1700000000000+r.IntN(1e9), r.Float64()*100, r.Float64(), r.IntN(1e6))
	}
	for prose.Len() < n {
		prose.WriteString("It is a truth universally acknowledged, that a single man in possession of a good fortune, must be in want of a wife. However little known the feelings\n")
	}
	raw := make([]byte, n*3/4)
	for i := range raw {
		raw[i] = byte(r.Uint32())
	}
	return map[string][]byte{
		"customers": customers.Bytes(), "html": html.Bytes(), "numbers": numbers.Bytes(), "prose": prose.Bytes(),
		"base64": []byte(base64.StdEncoding.EncodeToString(raw)), "binary": raw,
	}
}

// hostile are texts that are made to be slow.
func hostile() map[string][]byte {
	all := map[string][]byte{}
	for name, unit := range map[string]string{
		"at": "aaaa@", "only at": "@", "marked at": "a%40", "emails": "a@b.cc ", "long local": strings.Repeat("a", 64) + "@a.aa ", "long domain": "a@" + strings.Repeat("a.", 126) + "aa ",
		"urls": "//a.b.c.d.e.f:a@b.cc ", "digits": "4", "cards": "4111 ", "all cards": "4111111111111111 ", "pluses": "+49 1 ", "numbers": "1 ", "zeros": "00 49 ",
		"parentheses": "(030) ", "ibans": "DE89 1111111 ", "iban": "DE89370400440532013000 ", "words and digits": "a1 ", "percent": "%25", "backslash": "\\", "escapes": "\\u0061", "entities": "&#65;",
		"ampersand": "&", "leads": "order_i", "names": "order_id", "fields": "\"order_id\":", "tokens": "ch_", "ids": "d_d_", "idn": "ü@ü.de ",
	} {
		all[name] = []byte(strings.Repeat(unit, (64<<10)/len(unit)))
	}
	var distinct, idn bytes.Buffer
	for i := range 5000 {
		fmt.Fprintf(&distinct, "%d@b.cc ", i)
		fmt.Fprintf(&idn, "a@ü%d.cc ", i)
	}
	all["distinct"], all["distinct idn"] = distinct.Bytes(), idn.Bytes()
	return all
}

func benchmark(b *testing.B, texts map[string][]byte) {
	m := matcher(b, shop())
	for name, text := range texts {
		b.Run(strings.ReplaceAll(name, " ", "-"), func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			s := m.Stream()
			for b.Loop() {
				_, _ = s.Write(text)
			}
		})
	}
}

func BenchmarkStream(b *testing.B)  { benchmark(b, samples()) }
func BenchmarkHostile(b *testing.B) { benchmark(b, hostile()) }

// BenchmarkShort is a header or an address with its own Stream.
func BenchmarkShort(b *testing.B) {
	m := matcher(b, shop())
	text := []byte("/admin/api/2024-01/customers/207119551/orders.json?status=any&email=alice%40example.com")
	b.ReportAllocs()
	for b.Loop() {
		s := m.Stream()
		_, _ = s.Write(text)
		s.Close()
	}
}
