package alert

import (
	"cmp"
	"context"
	"slices"
)

// MaxNews is how many pieces of news one answer has at most.
const MaxNews = 200

// NewsQuery asks for what is news.
type NewsQuery struct {
	// Book is the one that After is a position in; of another book everything is
	// told from the beginning.
	Book string `json:"book"`
	// After is the last position that the caller has.
	After uint64 `json:"after"`
}

// News is what was news after a position, in order. An alert that was news
// again meanwhile is there once, in its newest place.
type News struct {
	Book  string      `json:"book"`  // tells this book from another of an agent of the same name
	After uint64      `json:"after"` // what to ask with next
	More  bool        `json:"more"`  // there is more now
	Items []NewsAlert `json:"items"`
}

// NewsAlert is an alert with its place in the news.
type NewsAlert struct {
	Position uint64 `json:"position"` // from 1
	Alert
}

// News returns what was news after q.After, as far as it is durable: a position
// that was given out once never stands for something else. What is muted now is
// passed over.
func (b *Book) News(ctx context.Context, q NewsQuery) (News, error) {
	if err := ctx.Err(); err != nil {
		return News{}, err
	}
	out := News{Book: b.id, After: q.After, Items: []NewsAlert{}}
	now := b.cfg.Clock()
	b.mu.Lock()
	durable := uint64(0)
	for _, e := range b.entries {
		durable = max(durable, e.stored)
	}
	if q.Book != b.id || q.After > durable { // another book, or one from a backup
		out.After = 0
	}
	for _, e := range b.entries {
		if e.stored > out.After && !e.muted(now) {
			out.Items = append(out.Items, NewsAlert{e.stored, e.shown(now)})
		}
	}
	b.mu.Unlock()
	slices.SortFunc(out.Items, func(x, y NewsAlert) int { return cmp.Compare(x.Position, y.Position) })
	out.After = durable
	if len(out.Items) > MaxNews {
		out.Items, out.More = out.Items[:MaxNews], true
		out.After = out.Items[MaxNews-1].Position
	}
	return out, nil
}
