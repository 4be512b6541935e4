// Package server is the control plane: an HTTP API over which people say which
// agents exist, make them run and see what they did. It keeps the answers in
// the store of package agent, lets a [Runner] do the running, and asks each
// agent's worker for what only that one knows.
//
// The API is on a Unix socket in the home, where the kernel says who calls, and
// optionally on a loopback port, where a token does. /openapi.json describes it
// (OpenAPI 3.1); every refusal is a problem (RFC 9457).
//
// What a person does to an agent is in that agent's log before it happens, and
// does not happen if it cannot be logged, but for two things that only take
// away: stop and wipe.
//
// Crash points: a version is stored before it is enforced, and what is wanted
// before it is done, so the next serve finishes what this one began. A new
// agent is stored as stopped and is wanted running only once its deploy is in
// its log.
//
// Trust: callers are trusted as far as their user: whoever may use the socket,
// or has read the token, may do everything. Workers are not trusted: what they
// answer is passed on as data, and the heads of their logs are checked here.
// Whoever controls the home controls every agent.
package server

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"ambit/agent"
	"ambit/alert/notify"
)

// Limits of the API.
const (
	readTimeout = 10 * time.Second // of a request's head; bodies have their own
	idleTimeout = 2 * time.Minute
	workTimeout = 15 * time.Minute // of one change, an image's download included
	grace       = 20 * time.Second // for changes that run when the server ends
	turnWait    = 30 * time.Second // for another change of the same agent
)

// Config is what a server needs.
type Config struct {
	Store   *agent.Store // required
	Runner  Runner       // required
	Workers Workers      // required
	Version string       // of the program
	// Connectors is the folder of the operator's connector files; see
	// ConnectorsDir. It need not exist; "" is none.
	Connectors string
	Log        *slog.Logger // slog.Default() when nil

	// Notify are those who are told of alerts, and NotifyState is the file in which
	// is kept what they were told; it is needed if there are any.
	Notify      []notify.Config
	NotifyState string
	// ControlLog is where what happens to the control plane is written. Required;
	// the caller closes it after the runner.
	ControlLog *ControlLog
	// Wiped is the folder for what remains of the logs of wiped agents; see
	// WipedDir. "" keeps nothing.
	Wiped string
	// Sinks is where the logs are streamed to; nil if nowhere. The caller closes
	// it after Serve.
	Sinks *Sinks
	// WitnessEvery is how often the logs of the workers that run are looked at;
	// a minute when 0.
	WitnessEvery time.Duration
	// Silence is how long a worker that runs may give no proof of its log before
	// that is taken for a refusal; 15 minutes when 0.
	Silence time.Duration
	// Witnesses are witnesses of others, to which every kept head is shown: they
	// see the names of agents, and how much each one does.
	Witnesses []Witness
	// Heads says where heads are kept for a later verification.
	Heads Heads
}

// Witness is one outside witness (https://c2sp.org/tlog-witness). Not trusted
// for more than its signature: what it refuses raises an alert and stops nothing.
type Witness struct {
	// Key is its public key, "name+12345678+BASE64" with the signature type 4
	// (https://c2sp.org/signed-note, "Verifier keys").
	Key string
	// URL is its submission prefix: https, or http on loopback.
	URL string
}

// Heads says where the newest cosigned heads are written as files. The folder
// should be one that this machine can add to and not change: what is in it is
// what a rewritten log is found out by.
type Heads struct {
	Folder string        // absolute, and there; "" is nowhere
	Every  time.Duration // an hour when 0
}

// Server is the control plane's API.
type Server struct {
	cfg   Config
	log   *slog.Logger
	turns turns
	api   http.Handler // behind the guards

	witness  *witness
	logins   *logins
	notifier *notify.Notifier // nil if nobody is told

	work     context.Context // of changes: ends when the grace is over
	stopWork context.CancelFunc
	streams  sync.WaitGroup // hijacked connections
}

// New returns a server that does not listen yet.
func New(cfg Config) (*Server, error) {
	if cfg.Store == nil || cfg.Runner == nil || cfg.Workers == nil || cfg.ControlLog == nil {
		return nil, errors.New("the server's configuration is not complete")
	}
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	cfg.WitnessEvery, cfg.Silence = cmp.Or(cfg.WitnessEvery, defaultWitnessEvery), cmp.Or(cfg.Silence, defaultSilence)
	cfg.Heads.Every = cmp.Or(cfg.Heads.Every, defaultHeadsEvery)
	s := &Server{cfg: cfg, log: cfg.Log, turns: newTurns(turnWait), logins: newLogins(cfg.ControlLog, cfg.Log)}
	var err error
	if s.witness, err = newWitness(&cfg, s.halted); err != nil {
		return nil, err
	}
	if err := s.openNotifier(); err != nil {
		return nil, err
	}
	s.work, s.stopWork = context.WithCancel(context.Background())
	s.api = s.routes()
	return s, nil
}

// Serve answers on l until ctx ends, then lets the changes that run come to an
// end, for a while, and returns nil. It is called once, and closes l.
func (s *Server) Serve(ctx context.Context, l *Listeners) error {
	defer s.stopWork()
	defer s.startNotifier()()
	requests, stopRequests := context.WithCancel(context.Background())
	defer stopRequests()
	servers := []*http.Server{s.http(requests, guardSocket(s.logins, s.api))}
	listeners := []net.Listener{l.socket}
	if l.port != nil {
		servers = append(servers, s.http(requests, guardPort(s.logins, l.token, s.api)))
		listeners = append(listeners, l.port)
	}
	s.streams.Go(func() { s.rounds(requests) })
	s.streams.Go(func() { s.stream(requests) })
	failed := make(chan error, len(servers))
	for i, h := range servers {
		go func() { failed <- h.Serve(listeners[i]) }()
	}
	var err error
	running := len(servers)
	select {
	case <-ctx.Done():
	case err = <-failed:
		running--
	}
	stopRequests() // streams and questions end at once; changes have a context of their own
	end, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	for _, h := range servers {
		if e := h.Shutdown(end); e != nil {
			s.stopWork()
			err = errors.Join(err, h.Close())
		}
	}
	for range running {
		if e := <-failed; !errors.Is(e, http.ErrServerClosed) {
			err = errors.Join(err, e)
		}
	}
	stopLooking := time.AfterFunc(askTimeout, s.stopWork)
	defer stopLooking.Stop()
	s.streams.Wait()
	if errors.Is(err, http.ErrServerClosed) {
		err = nil
	}
	return err
}

func (s *Server) http(base context.Context, h http.Handler) *http.Server {
	return &http.Server{
		Handler:           s.recoverer(h),
		ReadHeaderTimeout: readTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    32 << 10,
		BaseContext:       func(net.Listener) context.Context { return base },
		ConnContext:       withConn,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
	}
}

// detach makes the context of a change: it does not end when the caller goes
// away, because half a change is worse than a whole one.
func (s *Server) detach(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), workTimeout)
	stop := context.AfterFunc(s.work, cancel)
	return ctx, func() {
		stop()
		cancel()
	}
}
