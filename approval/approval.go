// Package approval keeps the questions that wait for a person: a call that the
// policy lets through only if people agree. A [Question] has the exact call, what
// wants it asked, and where its values came from; the answer names the digest of
// all that decides what the call is, so that what was shown is what is agreed to.
// What was agreed to runs once.
//
// The life of a question: [Store.Ask] makes it (waiting); [Store.Answer] decides
// it (approved, denied) or nobody does (expired); [Store.Take] spends it
// (running), and [Store.Finish] says how the call ended (done, failed). A call
// that ran when the process died is lost: it is not run again, because nobody
// knows whether it happened.
//
// Crash points. Asking and answering are in the log before they are in the
// database. If the process dies in between, the log has a question that is not
// there, or an answer that had no effect: the agent asks, or the person answers,
// again. Take is durable before it returns: if the process dies after that and
// before the call, the call did not happen, and counts as lost all the same. If
// it dies after the call and before Finish, it is lost too. Expiry takes effect
// by the clock, whether it could be written or not.
//
// A question that waits costs a row and a few hundred bytes of memory: there is
// one goroutine for all of them, and [Store.Close] waits for it.
//
// Trust: arguments, values and results are text of a hostile agent and of those
// it reads; they are kept as they are, encrypted, and made inert by whoever
// shows them. Words, reasons and origins are trusted to be written by the
// system. Who answers is trusted to be who the control plane says, and that it
// is no program of the agent's. Who can write to the database file can delete
// questions and put old rows back, also one that was approved and is spent;
// they cannot make an approval, nor change what one is for.
package approval

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"ambit"
	"ambit/internal/secretbytes"
	"ambit/internal/sqldb"
)

// Bounds.
const (
	DefaultExpires = 24 * time.Hour      // how long a question waits if nothing says otherwise
	MaxExpires     = 30 * 24 * time.Hour // the longest that one waits
	MaxArgs        = 256 << 10           // bytes of arguments that a person is shown
	MaxResult      = 1 << 20             // bytes of a result that are kept
	MaxNote        = 500                 // bytes of what a person says with an answer
	MaxOrigins     = 256                 // values of one call

	// Grace is how long an approval is good for at the least, also if the question
	// would have expired a moment after the answer.
	Grace = 15 * time.Minute
	// Refrain is how long a no holds for the same call in the same task: asking
	// again until somebody says yes is no way to a yes.
	Refrain = time.Hour

	defaultWaiting   = 20
	defaultPerMinute = 10
	defaultNoes      = 5
)

// State is where a question is in its life.
type State string

// The states. A question leaves waiting once, and approved once.
const (
	Waiting  State = "waiting"
	Approved State = "approved" // and not taken yet
	Denied   State = "denied"
	Expired  State = "expired" // nobody answered, or nobody took the approval
	Running  State = "running"
	Done     State = "done"
	Failed   State = "failed" // it ran, or was tried, and ended with an error
	Lost     State = "lost"   // the process died while it ran
)

// States are all of them.
func States() []State {
	return []State{Waiting, Approved, Denied, Expired, Running, Done, Failed, Lost}
}

// open says that something can still come of it.
func (s State) open() bool { return s == Waiting || s == Approved || s == Running }

// Cover says how far a yes goes in the rest of the task. It lifts the question of
// where a value came from, and nothing else.
type Cover string

// The covers, from the narrowest.
const (
	Once   Cover = "once"   // this call; "" is the same
	Value  Cover = "value"  // the same values, wherever the task uses them
	Source Cover = "source" // whatever came from the same sources
	Plan   Cover = "plan"   // whatever the plan of the task takes from where it says
)

func (c Cover) rank() int {
	switch c {
	case Value:
		return 1
	case Source:
		return 2
	case Plan:
		return 3
	}
	return 0
}

// Origin says where one value of the arguments came from.
type Origin struct {
	Pointer string      `json:"pointer"`         // JSON pointer into the arguments (RFC 6901)
	Value   string      `json:"value"`           // the whole of it, as text; a hostile agent may have chosen it
	Label   ambit.Label `json:"label"`           // "" is untrusted
	Text    string      `json:"text"`            // in words, by the system: "result of shop.tickets.get, event 41"
	Tool    string      `json:"tool,omitempty"`  // whose result it is
	Doubt   bool        `json:"doubt,omitempty"` // it is what a person has to look at
	Event   *uint64     `json:"event,omitempty"` // that brought it to the agent; nil if none is known
}

// Answer is what one person said.
type Answer struct {
	By    ambit.Principal `json:"by"`
	Yes   bool            `json:"yes"`
	Note  string          `json:"note,omitempty"` // the person's words, at most MaxNote bytes
	Cover Cover           `json:"cover"`          // of a yes
	Event uint64          `json:"event"`          // position of the approval.answer in the log; set by the store
	For   []int           `json:"for"`            // which of the asks it counts for; set by the store
	Time  time.Time       `json:"time"`           // UTC
}

// Question is one call that people are asked about. What asks fills in the
// fields from Task to Touched; the store does the rest.
type Question struct {
	ID    string        `json:"id"` // unique in a home: "support-7"
	Agent ambit.AgentID `json:"agent"`

	Task string `json:"task,omitempty"` // the piece of work that it belongs to
	Tool string `json:"tool"`           // fully qualified name
	// Args are the arguments in canonical form (RFC 8785): exactly the bytes that
	// run if people agree.
	Args          string          `json:"args"`
	ToolHash      string          `json:"toolHash"`             // of what the operator accepted of the tool
	PolicyVersion string          `json:"policyVersion"`        // that decided
	Effects       []ambit.Effect  `json:"effects,omitempty"`    //
	Provenance    []Origin        `json:"provenance,omitempty"` //
	Asks          []ambit.Ask     `json:"asks"`                 // what wants it asked; at least one
	Words         string          `json:"words"`                // the call in one line, written by the system
	Intent        string          `json:"intent,omitempty"`     // as the agent stated it, inert; the call runs with it
	Of            *uint64         `json:"of,omitempty"`         // the event in which the call was decided
	Touched       []ambit.Subject `json:"-"`                    // whom it is about, for the log

	Digest   string    `json:"digest"`           // see Digest
	Event    uint64    `json:"event"`            // position of the approval.ask in the log
	Asked    time.Time `json:"asked"`            // UTC
	Expires  time.Time `json:"expires"`          // UTC: not later can people agree, or the call be taken
	State    State     `json:"state"`            //
	Count    int       `json:"count"`            // how often it was asked
	Answers  []Answer  `json:"answers"`          // in order
	Decided  time.Time `json:"decided,omitzero"` // when it left waiting, UTC
	Ended    time.Time `json:"ended,omitzero"`   // when the call ended, UTC
	Error    string    `json:"error,omitempty"`  // how it failed; a hostile upstream may have chosen it
	Size     int       `json:"size,omitempty"`   // bytes of the result
	Result   []byte    `json:"-"`                // what Get and Wait return of it; nil if it is not kept
	ErasedAt time.Time `json:"erased,omitzero"`  // when what it says was erased, UTC
}

// Digest is what an answer signs: the hexadecimal SHA-256 over the agent, the
// tool's name, the arguments, the tool's hash and the version of the policy, each
// with its length before it.
func Digest(agent ambit.AgentID, tool, args, toolHash, policyVersion string) string {
	h := sha256.New()
	for _, s := range []string{"ambit approval v1", string(agent), tool, args, toolHash, policyVersion} {
		_, _ = h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(s))))
		_, _ = h.Write([]byte(s))
	}
	return hex.EncodeToString(h.Sum(nil))
}

// People is how many more people must agree, by what the asks say; 0 once it is
// not waiting.
func (q *Question) People() int {
	if q.State != Waiting {
		return 0
	}
	missing := 0
	for i := range q.Asks {
		agreed := 0 // different people: nobody agrees twice
		for _, a := range q.Answers {
			if a.Yes && slices.Contains(a.For, i) {
				agreed++
			}
		}
		missing = max(missing, max(q.Asks[i].People, 1)-agreed)
	}
	return missing
}

// Cover is how far the people who agreed let it go: as far as the most careful
// of them.
func (q *Question) Cover() Cover {
	c, any := Source, false
	for _, a := range q.Answers {
		if a.Yes {
			any = true
			if a.Cover.rank() < c.rank() {
				c = a.Cover
			}
		}
	}
	if !any || c.rank() == 0 {
		return Once
	}
	return c
}

// What a caller branches on.
var (
	ErrNotFound  = errors.New("there is no such question")
	ErrAgent     = errors.New("the question is another agent's")
	ErrDigest    = errors.New("the digest is not that of the question: what was shown is not what would run")
	ErrPrincipal = errors.New("only a person may answer")
	ErrNotAsked  = errors.New("this person is not among those who may answer")
	ErrAgain     = errors.New("this person has agreed already, and another one must")
	ErrAnswer    = errors.New("the answer cannot be taken")
	ErrWaiting   = errors.New("nobody has decided the question yet")
	ErrDecided   = errors.New("the question was answered already")
	ErrDenied    = errors.New("a person said no")
	ErrExpired   = errors.New("the question has expired")
	ErrTaken     = errors.New("the approval was used already: it is good for one call")
	ErrNotTaken  = errors.New("the call is not running")
	ErrClosed    = errors.New("the questions are closed")
)

// Log is the durable record: see gate.Log.
type Log interface {
	Append(context.Context, ambit.Event) (uint64, error)
	Record(ambit.Event)
}

// Alerter is told what a person should look at: see gate.Alerter.
type Alerter interface {
	Raise(severity ambit.Severity, key, title string, event uint64)
}

// Config is what a store needs.
type Config struct {
	// DB is the agent's database, shared with other packages. Required; the caller
	// closes it after the store.
	DB *sqldb.DB
	// Agent is whose questions they are. Required.
	Agent ambit.AgentID
	// Key is the agent's data-encryption key, 32 bytes; a key for this package's
	// own use is derived from it, and it is not kept. Required.
	Key secretbytes.Bytes
	// Log gets what is asked and answered. Required; the caller closes it after
	// the store.
	Log Log
	// Alerts is told of each new question, and of what is lost; nil is nobody.
	Alerts Alerter
	// Has says whether a person has a role that an ask names; nil is that nobody
	// has any. It is called with locks held, and must not wait.
	Has func(who ambit.Principal, role string) bool
	// MaxWaiting is how many questions may wait at once; 20 if 0.
	MaxWaiting int
	// PerMinute is how many new ones may come in a minute; 10 if 0.
	PerMinute int
	// MaxNoes is how many times in a row, within Refrain, people may have said no
	// to calls of one tool in one task before no other call of it is asked about;
	// 5 if 0.
	MaxNoes int
	// Keep says how long a question is kept after it has ended; 0 is forever, and
	// so is nil.
	Keep func(context.Context) time.Duration
	// Clock tells the time; time.Now when nil.
	Clock func() time.Time
}

// Store keeps the questions of one agent. It is safe for concurrent use.
type Store struct {
	cfg   Config
	aead  cipher.AEAD
	nudge chan struct{} // capacity 1: the next expiry may have moved
	ctx   context.Context
	stop  context.CancelFunc
	done  chan struct{}

	// mu is held while a question changes, also during I/O: there are few of them.
	// Everything below is a copy of what the database says, and more.
	mu     sync.Mutex
	stale  bool // a write failed, so that the copy may be wrong
	last   int64
	open   map[int64]*entry
	recent []time.Time // when questions were made, within the last minute
	noes   map[key]no
	yeses  map[key]time.Time    // the last one, by task and tool
	covers map[string][]Covered // by task
}

// entry is what is known of a question that something can still come of.
type entry struct {
	key     key
	state   State
	expires time.Time
	count   int
	changed chan struct{} // closed when the state changes; nil if nobody waits
}

// key is what makes two calls the same question.
type key struct{ task, digest string }

// no is a denial within Refrain.
type no struct {
	at   time.Time
	tool string
}

// Open opens the questions in the agent's database. What ran when the last
// process ended is lost from now on. The caller closes the store.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	if cfg.DB == nil || cfg.Log == nil || cfg.Agent == "" || cfg.Key.Len() != 32 {
		return nil, errors.New("opening the approvals: database, log, agent and a key of 32 bytes are required")
	}
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	if cfg.MaxWaiting <= 0 {
		cfg.MaxWaiting = defaultWaiting
	}
	if cfg.PerMinute <= 0 {
		cfg.PerMinute = defaultPerMinute
	}
	if cfg.MaxNoes <= 0 {
		cfg.MaxNoes = defaultNoes
	}
	aead, err := seal(cfg.Key, cfg.Agent)
	if err != nil {
		return nil, fmt.Errorf("opening the approvals: %w", err)
	}
	cfg.Key = secretbytes.Bytes{}
	s := &Store{cfg: cfg, aead: aead, nudge: make(chan struct{}, 1), done: make(chan struct{})}
	if err := s.migrate(ctx); err != nil {
		return nil, fmt.Errorf("opening the approvals: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.load(ctx); err != nil {
		return nil, fmt.Errorf("opening the approvals: %w", err)
	}
	if err := s.lose(ctx); err != nil {
		return nil, fmt.Errorf("opening the approvals: noting what was lost: %w", err)
	}
	s.ctx, s.stop = context.WithCancel(context.WithoutCancel(ctx))
	go s.run()
	return s, nil
}

func seal(k secretbytes.Bytes, agent ambit.AgentID) (cipher.AEAD, error) {
	derived, err := hkdf.Key(sha256.New, k.Reveal(), nil, "ambit approval v1\n"+string(agent), 32)
	if err != nil {
		return nil, err
	}
	defer clear(derived)
	block, err := aes.NewCipher(derived)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// Close ends the store and whoever waits in it.
func (s *Store) Close() error {
	s.stop()
	<-s.done
	s.mu.Lock() // after whoever is writing
	defer s.mu.Unlock()
	return nil
}

// begin takes the lock and makes the copy true. The caller unlocks, unless there
// is an error.
func (s *Store) begin(ctx context.Context) error {
	s.mu.Lock()
	err := s.ctx.Err()
	if err != nil {
		err = ErrClosed
	} else if s.stale {
		err = s.load(ctx)
	}
	if err == nil {
		err = s.expire(ctx)
	}
	if err != nil {
		s.mu.Unlock()
	}
	return err
}

func (s *Store) now() time.Time { return time.UnixMicro(s.cfg.Clock().UnixMicro()).UTC() }

// number is the part of an ID that tells questions of one agent apart.
func (s *Store) number(id string) (int64, error) {
	i := strings.LastIndexByte(id, '-')
	if i < 0 {
		return 0, ErrNotFound
	}
	n, err := strconv.ParseInt(id[i+1:], 10, 64)
	if err != nil || n < 1 || id != name(ambit.AgentID(id[:i]), n) {
		return 0, ErrNotFound
	}
	if id[:i] != string(s.cfg.Agent) {
		return 0, ErrAgent
	}
	return n, nil
}

func name(agent ambit.AgentID, n int64) string { return string(agent) + "-" + strconv.FormatInt(n, 10) }
