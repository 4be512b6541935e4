package server

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"ambit"
	"ambit/audit"
)

const (
	outsideTimeout = 15 * time.Second // for one answer of an outside witness
	maxOutside     = 16 << 10         // of one answer, in bytes
	maxProofLines  = 63               // https://c2sp.org/tlog-witness
	clockSkew      = 10 * time.Minute // that a cosignature may be ahead of us
	alarmEvery     = time.Hour        // for one log, in the control plane's log
)

// outside is a witness of others, asked over https://c2sp.org/tlog-witness.
type outside struct {
	vkey     string
	verifier note.Verifier
	url      string // of add-checkpoint
	http     *http.Client

	mu      sync.Mutex        // held for moments
	sizes   map[string]uint64 // by origin: what it cosigned last, as far as it is known
	shown   map[string]string // by origin: the text of the checkpoint that it cosigned last
	alarmed map[ambit.AgentID]time.Time
}

func newOutside(c Witness) (*outside, error) {
	v, err := audit.NewCosignatureVerifier(c.Key)
	if err != nil {
		return nil, err
	}
	u, err := url.Parse(c.URL)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Scheme != "https" && (u.Scheme != "http" || !loopbackHost(u.Host)) {
		return nil, fmt.Errorf("the URL %q of the witness %s is not of the form https://witness.example/prefix", c.URL, v.Name())
	}
	return &outside{
		vkey: c.Key, verifier: v, url: strings.TrimSuffix(c.URL, "/") + "/add-checkpoint",
		http: &http.Client{
			Timeout:       outsideTimeout,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		sizes: map[string]uint64{}, shown: map[string]string{}, alarmed: map[ambit.AgentID]time.Time{},
	}, nil
}

// outsideError is what an outside witness answered instead of a cosignature.
type outsideError struct {
	status int
	text   string
	alarm  bool // it knows another log than we do
}

func (e *outsideError) Error() string { return e.text }

// show hands a kept head to every outside witness that has not cosigned it, and
// adds their cosignatures to it. What they refuse raises an alert.
func (w *witness) show(ctx context.Context, id ambit.AgentID, p prover, head audit.Head) {
	var wg sync.WaitGroup
	for _, o := range w.outside {
		if o.has(head) {
			continue
		}
		wg.Go(func() {
			cosigned, err := o.cosign(ctx, head, p)
			if err == nil {
				err = w.addCosignature(ctx, id, cosigned)
			}
			if err == nil {
				o.remember(head)
				return
			}
			if ctx.Err() == nil {
				w.outsideFailed(ctx, id, o, err)
			}
		})
	}
	wg.Wait()
}

func (w *witness) outsideFailed(ctx context.Context, id ambit.AgentID, o *outside, err error) {
	whose := "the log of " + string(id)
	if id == "" {
		whose = "the log of the control plane"
	}
	w.slog.Warn("an outside witness did not cosign", slog.String("witness", o.verifier.Name()), slog.Any("agent", id), slog.Any("error", err))
	var answer *outsideError
	severity, code := ambit.Medium, "witness-unreachable "
	text := fmt.Sprintf("the witness %s did not cosign %s: %v", o.verifier.Name(), whose, err)
	if errors.As(err, &answer) && answer.alarm {
		severity, code = ambit.Critical, "witness-disagrees "
		text = fmt.Sprintf("the witness %s has seen another history of %s than this control plane: %v. Compare with heads kept elsewhere: ambit audit verify --head FILE", o.verifier.Name(), whose, err)
	}
	var seq uint64
	if severity == ambit.Critical && o.isNews(id, w.now()) {
		if seq, err = w.log.log.Append(context.WithoutCancel(ctx), ambit.Event{
			Kind: ambit.KindAuditWitness, Agent: id, Principal: ambit.PrincipalAmbit,
			Reason: &ambit.Reason{Code: "outside", Text: answer.text}, Detail: "by the witness " + o.verifier.Name(),
		}); err != nil {
			w.slog.Error("noting an outside witness's refusal", slog.Any("error", err))
		}
	}
	w.log.alerts.Raise(severity, code+o.verifier.Name()+" "+string(id), text, seq)
}

// addCosignature puts valid cosignatures of outside witnesses into the kept
// head, if that is still the one that they cosigned.
func (w *witness) addCosignature(ctx context.Context, id ambit.AgentID, cosigned []byte) error {
	key, err := w.verifierKey(ctx, id)
	if err != nil {
		return err
	}
	text, sigs, _ := bytes.Cut(cosigned, []byte("\n\n"))
	for range swapTries {
		kept, err := w.kept(ctx, id)
		if err != nil {
			return err
		}
		if t, _, _ := bytes.Cut(kept, []byte("\n\n")); !bytes.Equal(t, text) {
			return nil // a newer head was kept meanwhile; that one is shown next
		}
		joined, err := audit.Cosign(append(bytes.Clone(kept), sigs...), key, w.verifiersWithOwn())
		if err != nil {
			return err
		}
		if set, err := w.keep(ctx, id, kept, joined); err != nil || set {
			return err
		}
	}
	return errMoved
}

func (w *witness) verifiersWithOwn() []note.Verifier {
	own, err := audit.NewCosignatureVerifier(w.log.cosigner.VerifierKey())
	if err != nil { // NewCosigner has read it
		return w.verifiers()
	}
	return append(w.verifiers(), own)
}

func (o *outside) has(h audit.Head) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.shown[h.Origin] == checkpointText(h)
}

func (o *outside) remember(h audit.Head) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.sizes[h.Origin], o.shown[h.Origin] = h.Size, checkpointText(h)
}

// isNews says whether a disagreement about a log goes into the log again: each
// round would write it otherwise.
func (o *outside) isNews(id ambit.AgentID, now time.Time) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if at, ok := o.alarmed[id]; ok && now.Sub(at) < alarmEvery {
		return false
	}
	o.alarmed[id] = now
	return true
}

func checkpointText(h audit.Head) string {
	return fmt.Sprintf("%s\n%d\n%s\n", h.Origin, h.Size, h.Root)
}

// cosign asks the witness for its cosignature of a head and returns that note
// with it. If the witness says that it knows another size than was thought, it is
// asked once more from there.
func (o *outside) cosign(ctx context.Context, head audit.Head, p prover) ([]byte, error) {
	o.mu.Lock()
	old := o.sizes[head.Origin]
	o.mu.Unlock()
	if old > head.Size {
		old = 0 // it says what it has
	}
	for try := 0; ; try++ {
		proof, err := proofTo(ctx, p, old, head)
		if err != nil {
			return nil, err
		}
		status, contentType, answer, err := o.post(ctx, old, proof, head.Note)
		if err != nil {
			return nil, err
		}
		if status == http.StatusOK {
			return o.accept(head, answer)
		}
		size, conflict := conflictSize(status, contentType, answer)
		switch {
		case conflict && size > head.Size:
			return nil, &outsideError{status, fmt.Sprintf("it has cosigned %d events, and here there are %d: the log went back, and so did the control plane", size, head.Size), true}
		case conflict && size != old && try == 0:
			old = size
			continue
		}
		return nil, o.refused(status, answer)
	}
}

// proofTo asks the log for a proof to a head, and checks it: what a witness gets
// to see is right, or it is the log's fault here.
func proofTo(ctx context.Context, p prover, old uint64, head audit.Head) (tlog.TreeProof, error) {
	if old == 0 || old == head.Size {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	c, err := p.ConsistencyTo(ctx, old, head.Note)
	if err != nil {
		return nil, fmt.Errorf("asking the log for a proof from %d events: %w", old, err)
	}
	if len(c.Hashes) > maxProofLines {
		return nil, errors.New("the log's proof is longer than one can be")
	}
	return c.Hashes, nil
}

func (o *outside) post(ctx context.Context, old uint64, proof tlog.TreeProof, head []byte) (status int, contentType string, answer []byte, err error) {
	var b bytes.Buffer
	fmt.Fprintf(&b, "old %d\n", old)
	for _, h := range proof {
		fmt.Fprintf(&b, "%s\n", base64.StdEncoding.EncodeToString(h[:]))
	}
	b.WriteString("\n")
	b.Write(head)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, o.url, &b)
	if err != nil {
		return 0, "", nil, err
	}
	req.Header.Set("Content-Type", "text/plain; charset=utf-8")
	res, err := o.http.Do(req)
	if err != nil {
		return 0, "", nil, err
	}
	defer func() { _ = res.Body.Close() }()
	answer, err = io.ReadAll(io.LimitReader(res.Body, maxOutside+1))
	if err != nil {
		return 0, "", nil, fmt.Errorf("reading its answer: %w", err)
	}
	if len(answer) > maxOutside {
		return 0, "", nil, fmt.Errorf("its answer has more than %d bytes", maxOutside)
	}
	contentType, _, _ = mime.ParseMediaType(res.Header.Get("Content-Type"))
	return res.StatusCode, contentType, answer, nil
}

// conflictSize reads a 409: the size that the witness cosigned last.
func conflictSize(status int, contentType string, answer []byte) (size uint64, ok bool) {
	if status != http.StatusConflict || contentType != "text/x.tlog.size" {
		return 0, false
	}
	text, ok := strings.CutSuffix(string(answer), "\n")
	size, err := strconv.ParseUint(text, 10, 63)
	return size, ok && err == nil && strconv.FormatUint(size, 10) == text
}

// accept takes the witness's cosignature out of its answer, and checks it.
func (o *outside) accept(head audit.Head, lines []byte) ([]byte, error) {
	text, _, ok := bytes.Cut(head.Note, []byte("\n\n"))
	if !ok || !bytes.HasPrefix(lines, []byte("— ")) || !bytes.HasSuffix(lines, []byte("\n")) || bytes.Contains(lines, []byte("\n\n")) {
		return nil, errors.New("its answer is not signature lines")
	}
	cosigned := append(append(bytes.Clone(text), "\n\n"...), lines...)
	at, err := audit.Cosigned(cosigned, o.vkey)
	switch {
	case err != nil:
		return nil, err
	case at.IsZero() || at.Unix() == 0:
		return nil, errors.New("its answer has no cosignature of its own with a time")
	case time.Until(at) > clockSkew:
		return nil, fmt.Errorf("its cosignature is of %s: look at the clocks", at.Format(time.RFC3339))
	}
	return cosigned, nil
}

func (o *outside) refused(status int, answer []byte) error {
	said := strings.TrimSpace(string(answer[:min(len(answer), 200)]))
	switch status {
	case http.StatusNotFound:
		return &outsideError{status, "it does not know this log (404): give its operator the log's verifier key, which `ambit audit head --json` shows", false}
	case http.StatusForbidden:
		return &outsideError{status, "it does not know this log, or has another key for it (403): give its operator the log's verifier key, which `ambit audit head --json` shows", false}
	case http.StatusUnprocessableEntity:
		return &outsideError{status, "it refuses the proof (422): what it has cosigned is not the beginning of this log", true}
	}
	return &outsideError{status, fmt.Sprintf("it answered %d: %q", status, said), false}
}
