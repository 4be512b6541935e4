package server

import (
	"fmt"
	"testing"
	"time"

	"ambit"
)

// However many different callers are refused, the log has room for a few each hour.
func TestRefusedCallersCannotFillTheLog(t *testing.T) {
	f := serve(t, "")
	l := f.server.logins
	now := time.Now()
	l.clock = func() time.Time { return now }
	flood := func() int {
		before := len(f.said(t, ambit.KindLogin))
		for i := range 2000 {
			l.refuse(t.Context(), doorSocket, ambit.Principal(fmt.Sprintf("uid:%d", i)), "other-user", "refused")
		}
		return len(f.said(t, ambit.KindLogin)) - before
	}
	if n := flood(); n != maxRefused+1 {
		t.Errorf("%d events for 2000 callers, want %d and one for the others", n, maxRefused)
	}
	if n := flood(); n != 0 {
		t.Errorf("%d events within the hour", n)
	}
	now = now.Add(loginEvery)
	if n := flood(); n != maxRefused+1 {
		t.Errorf("%d events in the next hour", n)
	}
}
