package server

import (
	"context"
	"net/http"
	"runtime"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"ambit"
	"ambit/api"
	"ambit/manifest"
)

const (
	smallBody = 64 << 10
	// deployBody holds a manifest of the largest size with every byte escaped;
	// a larger manifest is refused by its own check, which says so better.
	deployBody = 6*manifest.MaxSize + 2*smallBody
	headsBody  = 4 << 20
)

// body is an answer in JSON.
type body[T any] struct{ Body T }

// answer is a body with a status of its own.
type answer[T any] struct {
	Status int
	Body   T
}

// AgentPath is the part of the path that names an agent. It is exported
// because the HTTP library sees embedded fields of exported types only.
type AgentPath struct {
	Agent ambit.AgentID `path:"agent" pattern:"^[a-z][a-z0-9-]{0,39}$" doc:"the agent's name"`
}

// routes is the whole API.
func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	a := humago.New(mux, s.openapi())
	const one = "/v1/agents/{agent}"

	handle(a, "version", "GET /v1/version", "The version of the control plane", s.version)
	handle(a, "list-agents", "GET /v1/agents", "All agents", s.listAgents)
	handle(a, "deploy", "POST /v1/agents", "Create or update the agent that a manifest names", s.deploy, bodyLimit(deployBody), created)
	handle(a, "get-agent", "GET "+one, "One agent", s.getAgent)
	handle(a, "wipe", "DELETE "+one, "Stop an agent and destroy everything of it", s.wipe)
	handle(a, "start", "POST "+one+"/start", "Make the agent's computer run", s.start)
	handle(a, "stop", "POST "+one+"/stop", "Stop the agent's computer", s.stop)
	handle(a, "list-versions", "GET "+one+"/versions", "All versions of its manifest, newest first", s.listVersions)
	handle(a, "get-version", "GET "+one+"/versions/{n}", "One version, with its source", s.getVersion)
	handle(a, "redeploy", "POST "+one+"/versions/{n}/deploy", "Put an old version in force again, as a new one", s.redeploy)
	handle(a, "exec", "POST "+one+"/exec", "Run a program in the agent's computer", s.exec, execResponses)
	handle(a, "output", "GET "+one+"/output", "What the agent's program wrote", s.output, media("application/octet-stream"))
	handle(a, "egress", "GET "+one+"/egress", "Calls that left or tried to, oldest first", s.egress, egressResponses)
	handle(a, "alerts", "GET /v1/alerts", "Alerts of all agents and of the control plane, whose agent is empty, newest first", s.alerts)
	handle(a, "ack-alert", "POST "+one+"/alerts/{id}/ack", "Mark an alert as seen", s.ackAlert)
	handle(a, "mute-alert", "POST "+one+"/alerts/{id}/mute", "Silence an alert for a while: it is counted, and nobody is told", s.muteAlert)
	handle(a, "unmute-alert", "DELETE "+one+"/alerts/{id}/mute", "Let a muted alert speak again", s.unmuteAlert)
	handle(a, "ack-control-alert", "POST /v1/control/alerts/{id}/ack", "Mark an alert about the control plane or its witness as seen; of a log that is refused: look at it again", s.ackControl)
	handle(a, "approvals", "GET /v1/approvals", "Questions that wait for a person, or did, of all agents, newest first", s.approvals)
	handle(a, "approval-stats", "GET /v1/approvals/stats", "How people answer", s.approvalStats)
	handle(a, "approval", "GET /v1/approvals/{id}", "One question, with the exact call", s.approval)
	handle(a, "answer-approval", "POST /v1/approvals/{id}/answer", "Agree to the call that was shown, or say no", s.answerApproval)
	handle(a, "tools", "GET "+one+"/tools", "The tools of its connections, and those that servers offer it", s.tools)
	handle(a, "judge-tool", "POST "+one+"/tools/judge", "Accept a server's tool as it was looked at, or reject it", s.judgeTool)
	handle(a, "destinations", "GET /v1/notify", "Who is notified of alerts, and how that goes", s.destinations)
	handle(a, "test-destination", "POST /v1/notify/{name}/test", "Send a test message to one of them", s.testDestination)
	handle(a, "keys", "GET /v1/keys", "How the root key and the agents' keys are", s.keys)
	handle(a, "change-root", "POST /v1/keys/root", "Put a new root key in force, protected in the same way or in another", s.changeRoot)
	handle(a, "rotate-key", "POST "+one+"/keys/rotate", "Seal every credential of an agent with a new key", s.rotateKey)
	handle(a, "connections", "GET "+one+"/connections", "The connections of its manifest, and how they are", s.connections)
	handle(a, "connection", "GET "+one+"/connections/{name}", "One connection, with what a person is asked for to connect it", s.connection)
	handle(a, "connect", "PUT "+one+"/connections/{name}", "Store the credential of a connection, or replace it", s.connect, bodyLimit(api.MaxConnect))
	handle(a, "revoke-all", "DELETE "+one+"/connections", "End all connections of the agent at once", s.revokeAll)
	handle(a, "revoke", "DELETE "+one+"/connections/{name}", "End one connection at once", s.revokeOne)
	handle(a, "start-oauth", "POST "+one+"/connections/{name}/oauth/start", "Start a login at the service", s.startOAuth, bodyLimit(api.MaxConnect))
	handle(a, "finish-oauth", "POST "+one+"/connections/{name}/oauth/finish", "Connect the account after a login in the browser", s.finishOAuth)
	handle(a, "audit-head", "GET "+one+"/audit/head", "The checkpoint of its log, proved to continue the last one, and cosigned", s.auditHead)
	handle(a, "audit-verify", "POST "+one+"/audit/verify", "Prove its log, also against checkpoints kept elsewhere", s.auditVerify, bodyLimit(headsBody))
	handle(a, "control-audit-head", "GET /v1/control/audit/head", "The checkpoint of the control plane's own log", s.controlHead)
	handle(a, "control-audit-verify", "POST /v1/control/audit/verify", "Prove the control plane's own log, also against checkpoints kept elsewhere", s.controlVerify, bodyLimit(headsBody))
	handle(a, "audit-search", "POST /v1/audit/search", "Find calls and other events in the logs of agents", s.auditSearch)
	handle(a, "audit-trace", "POST /v1/audit/trace", "Everything that touched somebody's data", s.auditTrace)
	handle(a, "audit-prove", "GET "+one+"/audit/events/{seq}/proof", "Prove that an event is in its log", s.auditProve)
	handle(a, "audit-export", "POST "+one+"/audit/export", "A signed bundle of its log, to be checked elsewhere", s.auditExport, media("application/x-tar"))
	handle(a, "audit-erase", "POST "+one+"/audit/erase", "Erase everything in its log that touches somebody", s.auditErase)
	handle(a, "begin-task", "POST "+one+"/tasks", "Say what you want of an agent", s.beginTask)
	handle(a, "audit-held", "GET "+one+"/audit/hold", "The legal hold on its log", s.auditHeld)
	handle(a, "audit-hold", "PUT "+one+"/audit/hold", "Set a legal hold on its log, or lift it", s.auditHold)
	handle(a, "audit-sinks", "GET /v1/audit/sinks", "Where events are streamed to, and how that goes", s.sinks)
	ownProblemSchema(a.OpenAPI())
	return misses(mux)
}

func (s *Server) openapi() huma.Config {
	c := huma.DefaultConfig("Ambit", s.cfg.Version)
	c.Info.Description = "The control plane of Ambit. On its Unix socket the caller is known by peer credentials; on its loopback port by a bearer token."
	c.DocsPath, c.SchemasPath = "", ""
	c.RejectUnknownQueryParameters = true
	c.CreateHooks = nil // no $schema members in answers
	c.Transformers = []huma.Transformer{ownProblems}
	c.Components.Schemas = huma.NewMapRegistry("#/components/schemas/", schemaName)
	c.Components.SecuritySchemes = map[string]*huma.SecurityScheme{"token": {Type: "http", Scheme: "bearer", Description: "of the loopback port; not needed on the socket"}}
	c.Security = []map[string][]string{{"token": {}}, {}}
	return c
}

// handle registers one operation: route is "METHOD /path".
func handle[I, O any](a huma.API, id, route, summary string, fn func(context.Context, *I) (*O, error), options ...func(*huma.Operation, huma.Registry)) {
	method, path := splitRoute(route)
	op := huma.Operation{OperationID: id, Method: method, Path: path, Summary: summary, MaxBodyBytes: smallBody, BodyReadTimeout: readTimeout}
	for _, option := range options {
		option(&op, a.OpenAPI().Components.Schemas)
	}
	huma.Register(a, op, func(ctx context.Context, in *I) (*O, error) {
		out, err := fn(ctx, in)
		if err != nil {
			return nil, problemOf(err)
		}
		return out, nil
	})
}

func splitRoute(route string) (method, path string) {
	for i := range route {
		if route[i] == ' ' {
			return route[:i], route[i+1:]
		}
	}
	return "", route
}

func bodyLimit(n int64) func(*huma.Operation, huma.Registry) {
	return func(op *huma.Operation, _ huma.Registry) { op.MaxBodyBytes = n }
}

// created documents the second good answer of a deploy.
func created(op *huma.Operation, r huma.Registry) {
	op.Responses = map[string]*huma.Response{"201": {
		Description: "Created",
		Content:     map[string]*huma.MediaType{"application/json": {Schema: r.Schema(typeOf[api.Deployed](), true, "")}},
	}}
}

func media(types ...string) func(*huma.Operation, huma.Registry) {
	return func(op *huma.Operation, _ huma.Registry) {
		content := map[string]*huma.MediaType{}
		for _, t := range types {
			content[t] = &huma.MediaType{Schema: &huma.Schema{Type: huma.TypeString}}
		}
		op.Responses = map[string]*huma.Response{"200": {Description: "OK", Content: content}}
	}
}

func (s *Server) version(context.Context, *struct{}) (*body[api.Version], error) {
	return &body[api.Version]{api.Version{Version: s.cfg.Version, API: 1, Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH}}, nil
}

type agentList struct {
	Agents []api.Agent `json:"agents" doc:"by name"`
}

func (s *Server) listAgents(ctx context.Context, _ *struct{}) (*body[agentList], error) {
	agents, err := s.cfg.Store.List(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]api.Agent, len(agents))
	for i, a := range agents {
		out[i] = s.describe(a)
	}
	return &body[agentList]{agentList{out}}, nil
}

// workerTimeout bounds a question to a worker that only decorates an answer.
const workerTimeout = 3 * time.Second

func (s *Server) getAgent(ctx context.Context, in *AgentPath) (*body[api.Status], error) {
	a, err := s.cfg.Store.Get(ctx, in.Agent)
	if err != nil {
		return nil, err
	}
	out := api.Status{Agent: s.describe(a)}
	if v, err := s.cfg.Store.VersionSource(ctx, a.ID, a.Version); err == nil {
		if m, err := bindStored("", v.Source, v.Connectors); err == nil {
			out.Reach = reach(m)
		}
	}
	ask, cancel := context.WithTimeout(ctx, workerTimeout)
	defer cancel()
	w, err := s.cfg.Workers.Worker(ask, a.ID)
	if err == nil {
		reported, statusErr := w.Status(ask)
		if err = statusErr; err == nil {
			out.Reported = &reported
		}
	}
	if err != nil {
		out.Missing = err.Error()
	}
	return &body[api.Status]{out}, nil
}
