package connector

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"ambit/scan"
)

// Each shipped connector finds in a realistic request and answer what
// identifies somebody, and nothing in what looks like it.
func TestShippedSubjects(t *testing.T) {
	type sample struct {
		text  string
		want  []string
		decoy string
	}
	samples := map[string]sample{
		"shopify": {
			`GET /admin/api/2024-10/orders/450789469.json?fields=id
{"order":{"id":450789469,"admin_graphql_api_id":"gid:\/\/shopify\/Order\/450789469","order_number":1001,"email":"bob.norman@mail.example.com","customer":{"id":207119551,"admin_graphql_api_id":"gid:\/\/shopify\/Customer\/207119551"}}}
GET /admin/api/2024-10/customers/115310627314723954/addresses.json`,
			[]string{"customer:115310627314723954", "customer:207119551", "email:bob.norman@mail.example.com", "order:1001", "order:450789469"},
			`GET /admin/api/2024-10/orders/count.json /products/632910392.json {"product_id":632910392,"customer_locale":"en","order_status_url":"https://acme.example/orders/x","id":5,"reorder_id":7,"gid":"gid://shopify/Product/1"}`,
		},
		"stripe": {
			`GET /v1/customers/cus_NffrFeUfNV2Hib {"id":"ch_3MmlLrLkdIwHu7ix0snN0B15","payment_intent":"pi_3MtwBwLkdIwHu7ix28a3tqPa","invoice":"in_1MtHbELkdIwHu7ixl4OzzPMv","subscription":"sub_1MowQVLkdIwHu7ixeRlqHVzs","receipt_email":"jenny@example.com"}`,
			[]string{"charge:ch_3MmlLrLkdIwHu7ix0snN0B15", "customer:cus_NffrFeUfNV2Hib", "email:jenny@example.com", "invoice:in_1MtHbELkdIwHu7ixl4OzzPMv", "payment:pi_3MtwBwLkdIwHu7ix28a3tqPa", "subscription:sub_1MowQVLkdIwHu7ixeRlqHVzs"},
			`{"object":"charge","paid":true,"amount":1099,"balance_transaction":"txn_3MmlLrLkdIwHu7ix0uke3Ezy","status":"in_progress","built_in_1MtHbELkdIwHu7ixl4OzzPMv":1,"created":1679090539,"receipt_url":"https://pay.stripe.com/receipts/payment/CAcaFwoVYWNjdF8xTTJKVGtMa2RJd0h1N2l4"}`,
		},
		"zendesk": {
			`GET /api/v2/tickets/35436.json {"ticket":{"url":"https://acme.zendesk.com/api/v2/tickets/35437.json","requester_id":20978392,"submitter_id":76872,"organization_id":509974}} PUT /api/v2/users/9873843`,
			[]string{"organization:509974", "ticket:35436", "ticket:35437", "user:20978392", "user:76872", "user:9873843"},
			`GET /api/v2/tickets/count /api/v2/users/me.json {"brand_id":123,"group_id":98738,"via":{"channel":"web"},"ticket_form_id":2,"custom_status_id":123,"requester_id":null}`,
		},
		"hubspot": {
			`GET /crm/v3/objects/contacts/512?properties=email /crm/v3/objects/0-2/77 {"id":"513","properties":{"email":"maria@example.com","phone":"+14155552671","associatedcompanyid":"78"},"url":"https://app.hubspot.com/contacts/1234567/record/0-1/514"} {"dealId":9}`,
			[]string{"company:77", "company:78", "contact:512", "contact:514", "deal:9", "email:maria@example.com", "phone:+14155552671"},
			`GET /crm/v3/objects/contacts?limit=10 /crm/v3/objects/contacts/batch/read {"results":[{"id":"512","createdAt":"2019-10-30T03:30:17.883Z"}],"paging":{"next":{"after":"NTI1Cg%3D%3D"}}}`,
		},
		"slack": {
			`{"type":"message","user":"U012AB3CDE","text":"hi \u003c@W012A3CDE\u003e","channel":"C0123456789"} users=U061F7AUR,U061F7AUS`,
			[]string{"user:U012AB3CDE", "user:U061F7AUR", "user:W012A3CDE"},
			`{"ok":true,"channel":"C0123456789","team":"T012AB3C4","bot_id":"B0123456789","user":"ULTIMATELY-LONG","text":"UNITEDKINGDOM","ts":"1503435956.000247"}`,
		},
		"notion": {
			`GET /v1/pages/59833787-2cf9-4fdf-8782-e53db20768a5 /v1/users/d40e767c-d7af-4b18-a86d-55c61f1e39a4 {"parent":{"type":"page_id","page_id":"98ad959b-2b6a-4774-80ee-00246fb0ea9b"}}`,
			[]string{"page:598337872cf94fdf8782e53db20768a5", "page:98ad959b2b6a477480ee00246fb0ea9b", "user:d40e767cd7af4b18a86d55c61f1e39a4"},
			`GET /v1/users/me /v1/pages {"object":"list","database_id":"668d797c-76fa-4934-9b05-ad288df2d136","page_size":100,"has_more":false}`,
		},
		"linear": {
			`{"variables":{"input":{"customerId":"0af7ba5f-3ab2-4b1d-9b86-0e4f4e6a1d3c","assigneeId":"9cfb482a-81e3-4154-b5b9-2c805e70a02d"}}}`,
			[]string{"customer:0af7ba5f3ab24b1d9b860e4f4e6a1d3c", "user:9cfb482a81e34154b5b92c805e70a02d"},
			`{"data":{"issue":{"id":"ENG-123","teamId":"9cfb482a-81e3-4154-b5b9-2c805e70a02d","estimate":3,"customerId":null}}}`,
		},
	}
	for _, c := range builtin(t).List() {
		m, err := scan.NewMatcher(c.Subjects)
		if err != nil {
			t.Errorf("%s: %v", c.Name, err)
			continue
		}
		s, ok := samples[c.Name]
		if ok != (len(c.Subjects) > 0) {
			t.Errorf("%s has %d subjects, and a sample: %v", c.Name, len(c.Subjects), ok)
			continue
		}
		if diff := cmp.Diff(s.want, subjects(m, s.text)); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", c.Name, diff)
		}
		if got := subjects(m, s.decoy); got != nil {
			t.Errorf("%s: the decoy has %v", c.Name, got)
		}
	}
}

// All that is shipped can be looked for at once.
func TestAllSubjectsTogether(t *testing.T) {
	var all []scan.Pattern
	for _, c := range builtin(t).List() {
		all = append(all, c.Subjects...)
	}
	if _, err := scan.NewMatcher(all); err != nil {
		t.Error(err)
	}
}

func subjects(m *scan.Matcher, text string) (all []string) {
	s := m.Stream()
	_, _ = s.Write([]byte(text))
	s.Close()
	for _, found := range s.Subjects() {
		all = append(all, found.String())
	}
	slices.Sort(all)
	return all
}
