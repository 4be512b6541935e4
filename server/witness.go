package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"

	"ambit"
	"ambit/agent"
	"ambit/audit"
	"ambit/control"
)

// prover is a log that proves what it claims: a worker's, or the control
// plane's own. What it says is not believed.
type prover interface {
	// Consistency is a head that is signed now, with the proof that the log had
	// old events before.
	Consistency(ctx context.Context, old uint64) (audit.Consistency, error)
	// ConsistencyTo is the proof to a head that the log signed before.
	ConsistencyTo(ctx context.Context, old uint64, head []byte) (audit.Consistency, error)
}

// The reasons for which a head is refused. They are codes in events.
const (
	refusedSignature = "signature" // it is not signed with the log's key, or is another log's
	refusedWentBack  = "went-back" // it has fewer events than before
	refusedRewritten = "rewritten" // it has as many, and others
	refusedForked    = "forked"    // it has more, and what was there is not proved to be their beginning
	refusedGarbage   = "garbage"   // the answer is none
	refusedSilent    = "no-answer" // there is none, for long, while the worker runs
	refusedKept      = "kept-head" // what control.db kept is not a head of this log
)

// refusal says that the witness does not cosign a log's head.
type refusal struct {
	agent ambit.AgentID // "" is the control plane's log
	code  string        // one of the above
	text  string        // what is wrong with the log, for a person
}

func (r *refusal) Error() string {
	if r.agent == "" {
		return "the log of the control plane is refused by the witness: " + r.text
	}
	return fmt.Sprintf("the log of %s is refused by the witness: %s. Its computer and its worker were stopped. Look at what happened; `ambit alerts` has the alert, and acknowledging it lets the witness look again", r.agent, r.text)
}

// errMoved says that heads of one log were kept by others again and again.
var errMoved = errors.New("the kept head changed meanwhile: try again")

const (
	askTimeout = 10 * time.Second // for a proof
	swapTries  = 5
	maxWhy     = 1000 // bytes of a refusal's text
)

// witness cosigns heads of logs that it has seen grow and do nothing else. It is
// safe for concurrent use.
//
// What makes two answers of one worker at the same time harmless is the store:
// a head is signed only after it was proved to continue the kept one, and leaves
// this process only after it has replaced just that one.
//
// Crash points: a head that is kept and was not handed on is handed on by the
// next look. A refusal is in the log first, then in the store, then the agent is
// halted; after a crash within that the kept head is still the old one, and the
// next look refuses again.
type witness struct {
	store   *agent.Store
	log     *ControlLog
	outside []*outside
	slog    *slog.Logger
	now     func() time.Time
	silence time.Duration               // how long a running worker may give no proof
	ask     time.Duration               // how long one answer may take
	halt    func(ambit.AgentID, string) // stops an agent whose log was refused

	mu     sync.Mutex // held for moments
	silent map[ambit.AgentID]silent
	own    *refusal // of the control plane's own log, until a person has seen it
}

// silent is since when a log has given no proof.
type silent struct {
	of    prover
	since time.Time
}

// verifierKey is the public key of a log in the form of signed notes, made from
// its seed: the worker is not asked for it.
func (w *witness) verifierKey(ctx context.Context, id ambit.AgentID) (string, error) {
	if id == "" {
		return w.log.log.VerifierKey(), nil
	}
	keys, err := w.store.Keys(ctx, id)
	if err != nil {
		return "", err
	}
	defer keys.Wipe()
	return audit.VerifierKey(id, keys.Sign)
}

func (w *witness) kept(ctx context.Context, id ambit.AgentID) ([]byte, error) {
	if id == "" {
		return w.store.ControlHead(ctx)
	}
	return w.store.Head(ctx, id)
}

func (w *witness) keep(ctx context.Context, id ambit.AgentID, old, head []byte) (bool, error) {
	if id == "" {
		return w.store.SetControlHead(ctx, old, head)
	}
	return w.store.SetHead(ctx, id, old, head)
}

// refused returns the refusal of a log that nobody has acknowledged yet.
func (w *witness) refused(ctx context.Context, id ambit.AgentID) error {
	if id == "" {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.own != nil {
			return w.own
		}
		return nil
	}
	why, err := w.store.Refused(ctx, id)
	if err != nil || why == "" {
		return err
	}
	return &refusal{agent: id, text: why}
}

// look asks a log to prove that it continues the head that was kept, and then
// keeps and returns its new head, cosigned. If it has not grown, and the kept
// head was cosigned less than age ago, that one is returned. A log that does not
// prove it is refused: a *refusal, here and from then on, until a person
// acknowledges it. Any other error says that there was no answer.
func (w *witness) look(ctx context.Context, id ambit.AgentID, p prover, age time.Duration) (audit.Head, error) {
	for range swapTries {
		if err := w.refused(ctx, id); err != nil {
			return audit.Head{}, err
		}
		head, set, err := w.lookOnce(ctx, id, p, age)
		var r *refusal
		switch {
		case errors.As(err, &r):
			w.refuse(ctx, r)
			return audit.Head{}, r
		case err != nil:
			return audit.Head{}, err
		case set:
			return head, nil
		}
	}
	return audit.Head{}, errMoved
}

// lookOnce returns set false if another look was faster.
func (w *witness) lookOnce(ctx context.Context, id ambit.AgentID, p prover, age time.Duration) (_ audit.Head, set bool, err error) {
	kept, err := w.kept(ctx, id)
	if err != nil {
		return audit.Head{}, false, err
	}
	key, err := w.verifierKey(ctx, id)
	if err != nil {
		return audit.Head{}, false, err
	}
	var old audit.Head
	if kept != nil {
		if old, err = audit.ParseHead(kept, key); err != nil {
			return audit.Head{}, false, &refusal{id, refusedKept, "the head that was kept in control.db is not one of this log: " + err.Error()}
		}
	}
	ask, cancel := context.WithTimeout(ctx, w.ask)
	defer cancel()
	proof, err := p.Consistency(ask, old.Size)
	if errors.Is(err, control.ErrGarbage) {
		return audit.Head{}, false, &refusal{id, refusedGarbage, err.Error()}
	}
	if err != nil {
		return audit.Head{}, false, w.noAnswer(ctx, id, p, err)
	}
	w.answered(id)
	head, r := check(id, key, kept != nil, old, proof)
	if r != nil {
		return audit.Head{}, false, r
	}
	signed := head.Note
	if kept != nil && head.Size == old.Size {
		if at, err := audit.Cosigned(kept, w.log.cosigner.VerifierKey()); err == nil && w.now().Sub(at) < age && !at.After(w.now().Add(time.Minute)) {
			return old, true, nil
		}
		signed = kept // with the cosignatures that it has
	}
	cosigned, err := audit.Cosign(signed, key, w.verifiers(), w.log.cosigner)
	if err != nil {
		return audit.Head{}, false, &refusal{id, refusedGarbage, err.Error()}
	}
	head.Note = cosigned
	set, err = w.keep(ctx, id, kept, cosigned)
	return head, set, err
}

// check is what the witness demands of an answer: a head that is signed with
// the log's key and continues the old one.
func check(id ambit.AgentID, key string, kept bool, old audit.Head, proof audit.Consistency) (audit.Head, *refusal) {
	head, err := audit.ParseHead(proof.Head.Note, key)
	if err != nil {
		return audit.Head{}, &refusal{id, refusedSignature, "its head is not one of this log: " + err.Error()}
	}
	head.Time = proof.Head.Time
	if !kept {
		return head, nil
	}
	proof.Head = head // nothing else that the answer says about it counts
	switch err := proof.Check(old); {
	case head.Size < old.Size:
		return head, &refusal{id, refusedWentBack, fmt.Sprintf("it went back: it had %d events when it was last seen, and has %d", old.Size, head.Size)}
	case head.Size == old.Size && head.Root != old.Root:
		return head, &refusal{id, refusedRewritten, fmt.Sprintf("it was rewritten: its %d events are not those that were last seen", head.Size)}
	case err != nil:
		return head, &refusal{id, refusedForked, fmt.Sprintf("it was rewritten: it has %d events, and the %d that were last seen are not proved to be the first of them (%v)", head.Size, old.Size, err)}
	}
	return head, nil
}

// noAnswer notes that a log gave no proof. Once it has given none for long it is
// refused: who forged it may hang as well as lie.
func (w *witness) noAnswer(ctx context.Context, id ambit.AgentID, p prover, cause error) error {
	if ctx.Err() != nil { // it is we who go away
		return cause
	}
	w.mu.Lock()
	s, ok := w.silent[id]
	if !ok || s.of != p {
		s = silent{p, w.now()}
		w.silent[id] = s
	}
	w.mu.Unlock()
	if for_ := w.now().Sub(s.since); for_ >= w.silence {
		return &refusal{id, refusedSilent, fmt.Sprintf("it has given no proof for %v although its worker runs: %v", for_.Round(time.Second), cause)}
	}
	return fmt.Errorf("the log gives no proof that it only grew: %w", cause)
}

func (w *witness) answered(id ambit.AgentID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.silent, id)
}

// refuse says it to people, for good, and halts the agent. Halting only takes
// away, so it happens also when nothing can be written.
func (w *witness) refuse(ctx context.Context, r *refusal) {
	ctx = context.WithoutCancel(ctx)
	w.answered(r.agent)
	r.text = r.text[:min(len(r.text), maxWhy)] // it may quote a worker
	seq, err := w.log.log.Append(ctx, ambit.Event{
		Kind: ambit.KindAuditWitness, Agent: r.agent, Principal: ambit.PrincipalAmbit,
		Reason: &ambit.Reason{Code: r.code, Text: r.text, Remedy: "keep the agent's folder for examination; acknowledge the alert to let the witness look again"},
		Detail: "the head that was kept stays as it is",
	})
	if r.agent == "" {
		w.mu.Lock()
		w.own = r
		w.mu.Unlock()
	} else if e := w.store.SetRefused(ctx, r.agent, r.text); !errors.Is(e, agent.ErrNotFound) {
		err = errors.Join(err, e)
	}
	if err != nil {
		w.slog.Error("noting a refusal of the witness", slog.Any("agent", r.agent), slog.Any("error", err))
	}
	w.slog.Error("the witness refuses a log", slog.Any("agent", r.agent), slog.String("code", r.code), slog.String("why", r.text))
	w.log.alerts.Raise(ambit.Critical, refusalKey(r.agent), r.Error(), seq)
	if r.agent != "" {
		w.halt(r.agent, "the witness refuses its log: "+r.text)
	}
}

func (w *witness) verifiers() []note.Verifier {
	out := make([]note.Verifier, len(w.outside))
	for i, o := range w.outside {
		out[i] = o.verifier
	}
	return out
}
