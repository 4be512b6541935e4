package alert

import (
	"context"
	"errors"
	"fmt"
	"time"

	"ambit"
)

// MaxMute is the longest that an alert is muted for.
const MaxMute = 366 * 24 * time.Hour

// ErrMute says that a mute was asked for that there is not.
var ErrMute = errors.New("an alert is muted for a minute at least and for a year at most")

// Ack notes, durably, that by has seen an alert. The next one with its key is
// news again. It returns ErrNotFound if there is none with that number. What a
// person does to an alert is in the log before it is done.
func (b *Book) Ack(ctx context.Context, id int64, by ambit.Principal) error {
	return b.change(ctx, "acknowledging", id, by, ambit.KindAlertAck, "seen", func(e *entry) {
		e.Acked, e.AckedBy = true, by
	})
}

// Mute silences an alert for a while, durably: it is counted, and no news. why
// is what by says about it, and may be "".
func (b *Book) Mute(ctx context.Context, id int64, by ambit.Principal, d time.Duration, why string) error {
	if d < time.Minute || d > MaxMute {
		return fmt.Errorf("muting alert %d: %w", id, ErrMute)
	}
	until, why := time.UnixMicro(b.cfg.Clock().Add(d).UnixMicro()).UTC(), inert(why)
	detail := "muted until " + until.Format(time.RFC3339)
	if why != "" {
		detail += ": " + why
	}
	return b.change(ctx, "muting", id, by, ambit.KindAlertMute, detail, func(e *entry) {
		e.MutedUntil, e.MutedBy, e.MutedWhy, e.news = &until, by, why, false
	})
}

// Unmute ends a mute. The next alert with the key is news.
func (b *Book) Unmute(ctx context.Context, id int64, by ambit.Principal) error {
	return b.change(ctx, "unmuting", id, by, ambit.KindAlertMute, "not muted any more", func(e *entry) {
		if e.MutedUntil != nil {
			now := time.UnixMicro(b.cfg.Clock().UnixMicro()).UTC()
			e.MutedUntil = &now
		}
	})
}

// change logs what a person does to an alert, does it, and stores it.
func (b *Book) change(ctx context.Context, doing string, id int64, by ambit.Principal, kind ambit.Kind, detail string, do func(*entry)) error {
	b.mu.Lock()
	var found *entry
	var of uint64
	var key string
	for _, e := range b.entries {
		if e.ID == id {
			found, of, key = e, e.Event, e.Key
		}
	}
	b.mu.Unlock()
	if found == nil {
		return fmt.Errorf("%s alert %d: %w; see the list of alerts for the numbers", doing, id, ErrNotFound)
	}
	_, err := b.cfg.Log.Append(ctx, ambit.Event{Kind: kind, Agent: b.cfg.Agent, Principal: by, Of: &of, Detail: fmt.Sprintf("alert %d (%s): %s", id, key, detail)})
	if err != nil {
		return fmt.Errorf("%s alert %d: logging it first: %w", doing, id, err)
	}
	b.mu.Lock()
	do(found)
	found.dirty = true
	b.mu.Unlock()
	if err := b.store(ctx); err != nil {
		return fmt.Errorf("%s alert %d: %w", doing, id, err)
	}
	return nil
}
