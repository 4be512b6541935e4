//go:build linux

package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"charm.land/lipgloss/v2"

	"ambit/api"
	"ambit/audit"
	"ambit/cmd/ambit/report"
	"ambit/internal/sqldb"
)

// playLog asks what was done with a customer's data, changes one byte of the log
// behind its back, and lets it be found.
func (s *stage) playLog(ctx context.Context, r *result) error {
	s.scene("Its log", "A customer asks: what did your agent do with my data? ambit audit trace --subject "+customer)
	t, err := s.plane.client.Trace(ctx, api.Search{Subjects: []string{customer}})
	if err != nil {
		return fmt.Errorf("asking what was done: %w", err)
	}
	told := report.New(t, time.Local) //nolint:gosmopolitan // for the person who looks
	for _, line := range told.Summary {
		for part := range strings.Lines(lipgloss.Wrap(line, nameWidth+s.room()+tookWidth+4, "")) {
			s.line("       ", strings.TrimSpace(part))
		}
	}
	for i, e := range told.Entries {
		r.Trace = append(r.Trace, e.What+": "+e.Target)
		target := e.Target
		if paid := new(refund); t.Entries[i].Event.Tool == refundTool && json.Unmarshal([]byte(t.Entries[i].Event.Resource), paid) == nil {
			target = paid.money() + ", order " + strconv.Itoa(paid.Order)
			if e.Asked != "" {
				target = paid.money() + ": " + strings.TrimSpace(e.Asked[strings.LastIndex(e.Asked, ";")+1:])
			}
		}
		s.line("       ", fit(e.What, 2*nameWidth), s.faint(fit(target, s.room()-nameWidth)))
	}
	return s.tamper(ctx, r)
}

// tamper changes one byte of an event's stored body, verifies, and puts it back.
func (s *stage) tamper(ctx context.Context, r *result) (err error) {
	calls, err := s.plane.client.Calls(ctx, support, audit.CallQuery{})
	if err != nil || len(calls) == 0 {
		return fmt.Errorf("asking for the agent's calls: %d, %w", len(calls), err)
	}
	r.Changed = calls[0].Seq
	db, err := sqldb.Open(ctx, filepath.Join(s.plane.home, "agents", string(support), "state", "agent.db"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	var body []byte
	if err := db.QueryRow(ctx, "SELECT sealed FROM audit_event WHERE seq = ?", []any{int64(r.Changed)}, &body); err != nil {
		return err
	}
	put := func(b []byte) error {
		return db.Write(ctx, func(tx *sqldb.Tx) error {
			_, err := tx.Exec(ctx, "UPDATE audit_event SET sealed = ? WHERE seq = ?", b, int64(r.Changed))
			return err
		})
	}
	changed := slices.Clone(body)
	changed[len(changed)/2] ^= 1
	if err := put(changed); err != nil {
		return err
	}
	began := time.Now()
	v, err := s.plane.client.Verify(ctx, support, nil)
	took := time.Since(began)
	if err = errors.Join(err, put(body)); err != nil {
		return err
	}
	for _, p := range v.Report.Problems {
		r.Found = append(r.Found, p.Text)
	}
	if len(v.Report.Problems) == 1 && v.Report.Problems[0].Seq == r.Changed && !v.OK {
		s.fact("one byte is changed; ambit audit verify: "+v.Report.Problems[0].Text, took)
	}
	return nil
}

// judgeLog returns what is wrong with what the log answered.
func (r *result) judgeLog() (leaks []string) {
	if len(r.Trace) < 3 {
		leaks = append(leaks, fmt.Sprintf("the log knows %d things that were done with the data of %s", len(r.Trace), customer))
	}
	if len(r.Found) != 1 || !strings.HasPrefix(r.Found[0], fmt.Sprintf("event %d was changed", r.Changed)) {
		leaks = append(leaks, fmt.Sprintf("event %d was changed, and the verification found %q", r.Changed, r.Found))
	}
	return leaks
}
