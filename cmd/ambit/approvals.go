package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"charm.land/lipgloss/v2"
	"github.com/spf13/cobra"

	"ambit"
	"ambit/api"
	"ambit/approval"
	"ambit/client"
	"ambit/internal/inert"
)

func (a *app) approvalsCommand() *cobra.Command {
	c := a.listApprovals(&cobra.Command{
		Use:     "approvals",
		Short:   "Show what waits for a person, and answer it",
		Long:    "Show the calls that wait for a person to agree, the newest first. A call that people agreed to runs once, exactly as it was shown. docs/approvals.md says how that works.\n\nExit codes of approve: 0 it may run now, 1 failed, 3 you may not answer this, 4 your yes counts and others must still agree.",
		Example: "ambit approvals\nambit approvals --agent support --all\nambit approvals show support-7\nambit approvals approve support-7\nambit approvals deny support-7 --note \"wrong order\"",
	})
	c.AddCommand(a.listApprovals(&cobra.Command{
		Use:     "list",
		Short:   "Show what waits for a person",
		Example: "ambit approvals list\nambit approvals list --all",
	}), a.showApprovalCommand(), a.approveCommand(), a.denyCommand(), a.approvalStatsCommand())
	return c
}

func (a *app) listApprovals(c *cobra.Command) *cobra.Command {
	var agent string
	var all bool
	c.Args = args(cobra.NoArgs)
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		id, err := optionalAgent(agent)
		if err != nil {
			return err
		}
		state := approval.Waiting
		if all {
			state = ""
		}
		return a.withClient(func(c *client.Client) error {
			found, err := c.Approvals(cmd.Context(), id, state, 0)
			if err != nil {
				return err
			}
			return a.printApprovals(found)
		})
	}
	c.Flags().StringVar(&agent, "agent", "", "only of this agent")
	c.Flags().BoolVar(&all, "all", false, "also those that do not wait any more")
	return c
}

func optionalAgent(s string) (ambit.AgentID, error) {
	if s == "" {
		return "", nil
	}
	return agentName(s)
}

func (a *app) printApprovals(found api.Approvals) error {
	if a.json {
		return a.printJSON(found)
	}
	if len(found.Approvals) == 0 && len(found.Missing) == 0 {
		return a.print("Nothing waits for a person.")
	}
	if len(found.Approvals) > 0 {
		t := table{head: []string{"ID", "STATE", "ASKED", "EXPIRES", "TOOL", "WHAT"}}
		for _, q := range found.Approvals {
			expires := "-"
			if q.State == approval.Waiting || q.State == approval.Approved {
				expires = clock(q.Expires)
			}
			r := row{cells: []string{q.ID, string(q.State), clock(q.Asked), expires, q.Tool, shorten(q.Words, 100)}}
			if q.Count > 1 {
				r.note = fmt.Sprintf("asked %d times", q.Count)
			}
			if q.State == approval.Lost || q.State == approval.Failed {
				r.color = lipgloss.Red
			}
			t.rows = append(t.rows, r)
		}
		if err := t.write(a.stdout, a.color()); err != nil {
			return err
		}
	}
	return askedAll(found.Missing)
}

// askedAll is an error if agents could not be asked.
func askedAll(missing []string) error {
	if len(missing) == 0 {
		return nil
	}
	return fmt.Errorf("some agents could not be asked:\n  %s", strings.Join(missing, "\n  "))
}

// onQuestion makes a command about one question: fn is called with its name.
func (a *app) onQuestion(c *cobra.Command, fn func(ctx context.Context, c *client.Client, id string) error) *cobra.Command {
	var agent string
	c.Args = args(cobra.ExactArgs(1))
	c.RunE = func(cmd *cobra.Command, args []string) error {
		id, err := questionName(agent, args[0])
		if err != nil {
			return err
		}
		return a.withClient(func(c *client.Client) error { return fn(cmd.Context(), c, id) })
	}
	c.Flags().StringVar(&agent, "agent", "", "whose question it is, if only its number is given")
	return c
}

// questionName reads the name of a question as a person wrote it: support-7, or 7
// with the agent beside it.
func questionName(agent, s string) (string, error) {
	of, err := optionalAgent(agent)
	if err != nil {
		return "", err
	}
	if n, err := strconv.ParseInt(s, 10, 64); err == nil && n > 0 && of != "" {
		return fmt.Sprintf("%s-%d", of, n), nil
	}
	i := strings.LastIndexByte(s, '-')
	if i > 0 {
		id, err := agentName(s[:i])
		n, nerr := strconv.ParseInt(s[i+1:], 10, 64)
		if err == nil && nerr == nil && n > 0 && s[i+1] != '0' && s[i+1] != '+' {
			if of != "" && of != id {
				return "", usageError{fmt.Errorf("%s is a question of %s, not of %s", s, id, of)}
			}
			return s, nil
		}
	}
	return "", usageError{fmt.Errorf("%q is not the name of a question, such as support-7: `ambit approvals` shows them", shorten(s, 60))}
}

func (a *app) showApprovalCommand() *cobra.Command {
	return a.onQuestion(&cobra.Command{
		Use:     "show ID",
		Short:   "Show one question: the exact call, and where its values came from",
		Long:    "Show one question: what would be done, with the exact arguments, where each value came from, what wants it asked, who answered, and what came of it.",
		Example: "ambit approvals show support-7",
	}, func(ctx context.Context, c *client.Client, id string) error {
		q, err := c.Approval(ctx, id)
		if err != nil {
			return err
		}
		if a.json {
			return a.printJSON(q)
		}
		return writeQuestion(a.stdout, &q, a.color())
	})
}

// writeQuestion shows all of a question. What an agent, or somebody it read,
// chose is on one line each, inert, and behind the words of the system.
func writeQuestion(w io.Writer, q *approval.Question, color bool) error {
	bold := func(s string) string {
		if color {
			return lipgloss.NewStyle().Bold(true).Render(s)
		}
		return s
	}
	var b strings.Builder
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&b, "%-10s%s\n", name, inert.Text(value))
		}
	}
	fmt.Fprintf(&b, "%s\n\n", bold(inert.Text(q.ID+": "+q.Words)))
	line("State", standing(q))
	line("Agent", string(q.Agent))
	line("Task", q.Task)
	line("Tool", q.Tool)
	line("Effects", effectList(q.Effects))
	if q.Intent != "" {
		line("Intent", "(as the agent states it) "+q.Intent)
	}
	asked := fmt.Sprintf("%s, event %d of its log", clock(q.Asked), q.Event)
	if q.Count > 1 {
		asked += fmt.Sprintf(", %d times", q.Count)
	}
	line("Asked", asked)
	if q.State == approval.Waiting || q.State == approval.Approved {
		line("Expires", clock(q.Expires))
	}
	line("Digest", q.Digest)
	line("Failed", q.Error)

	fmt.Fprintf(&b, "\n%s\n", bold("The exact arguments"))
	for l := range strings.SplitSeq(indented(q.Args), "\n") {
		b.WriteString("  " + inert.Text(l) + "\n")
	}
	for _, word := range lookalikes(q.Args) {
		fmt.Fprintf(&b, "  careful: %s mixes alphabets: it is %s\n", inert.Text(word), inert.Spelled(word))
	}
	if !q.ErasedAt.IsZero() {
		fmt.Fprintf(&b, "  what this call said was erased on %s\n", clock(q.ErasedAt))
	}
	fmt.Fprintf(&b, "\n%s\n", bold("Why a person is asked"))
	for _, ask := range q.Asks {
		fmt.Fprintf(&b, "  %s\n", inert.Text(because(ask)))
	}
	if len(q.Answers) > 0 {
		fmt.Fprintf(&b, "\n%s\n", bold("Answers"))
	}
	for _, said := range q.Answers {
		fmt.Fprintf(&b, "  %s\n", inert.Text(answered(said)))
	}
	if len(q.Provenance) > 0 {
		fmt.Fprintf(&b, "\n%s\n", bold("Where its values came from"))
	}
	if _, err := io.WriteString(w, b.String()); err != nil || len(q.Provenance) == 0 {
		return err
	}
	t := table{head: []string{"VALUE", "IS", "FROM", "NAMELY"}}
	for _, o := range q.Provenance {
		r := row{cells: []string{o.Pointer, shorten(o.Value, 80), or(string(o.Label), "untrusted"), o.Text}}
		if o.Doubt {
			r.color, r.note = lipgloss.Yellow, "look at this one"
		}
		t.rows = append(t.rows, r)
	}
	return t.write(w, color)
}

func standing(q *approval.Question) string {
	s := string(q.State)
	switch {
	case q.People() > 1:
		s += fmt.Sprintf(" for %d people", q.People())
	case len(q.Answers) > 0 && q.People() > 0:
		s += " for one more person"
	case q.State == approval.Approved:
		s += ", and not run yet"
	case q.State == approval.Lost:
		s += ": the worker ended while it ran; whether it happened is not known, and it is not run again"
	}
	if !q.Ended.IsZero() {
		s += ", " + clock(q.Ended)
	}
	return s
}

func effectList(effects []ambit.Effect) string {
	out := make([]string, len(effects))
	for i, e := range effects {
		out[i] = string(e)
	}
	return strings.Join(out, ", ")
}

// indented is JSON with its layout changed, and no character of it otherwise.
func indented(s string) string {
	var b bytes.Buffer
	if json.Indent(&b, []byte(s), "", "  ") != nil {
		return s
	}
	return b.String()
}

// lookalikes are the words in the strings of a document that may not be what they
// look like, each once.
func lookalikes(args string) []string {
	var found []string
	d := json.NewDecoder(strings.NewReader(args))
	for {
		t, err := d.Token()
		if err != nil {
			return found
		}
		if s, ok := t.(string); ok {
			for _, w := range inert.Mixed(s) {
				if !slices.Contains(found, w) && len(found) < 20 {
					found = append(found, w)
				}
			}
		}
	}
}

func because(ask ambit.Ask) string {
	s := ask.Rule
	if ask.Reason.Text != "" {
		s += ": " + ask.Reason.Text
	}
	if len(ask.From) > 0 {
		s += "; asks " + strings.Join(ask.From, ", ")
	}
	if ask.People > 1 {
		s += fmt.Sprintf("; %d people must agree", ask.People)
	}
	return s
}

func answered(said approval.Answer) string {
	word := "no"
	if said.Yes {
		word = "yes"
	}
	s := fmt.Sprintf("%s by %s, %s", word, said.By, clock(said.Time))
	switch said.Cover {
	case approval.Value:
		s += ", also for these values elsewhere in the task"
	case approval.Source:
		s += ", also for what else comes from these sources in the task"
	case approval.Plan:
		s += ", also for what the plan of the task takes from where it says"
	}
	if said.Note != "" {
		s += ": " + said.Note
	}
	return s
}

func (a *app) approveCommand() *cobra.Command {
	var note, cover, digest string
	var yes bool
	c := a.onQuestion(&cobra.Command{
		Use:     "approve ID",
		Short:   "Agree to a call",
		Long:    "Agree to a call: it runs once, exactly as shown. On a terminal the question is shown and it asks first. Elsewhere it needs --digest with the first 12 or more digits of the digest that `ambit approvals show` has, or --yes.\n\n--cover value lets the same values pass in the rest of the task without a person, and --cover source whatever comes from the same sources, and --cover plan whatever the task's plan takes from where it says; none of them lifts another rule.",
		Example: "ambit approvals approve support-7\nambit approvals approve support-7 --digest 3f9a1c22b70d\nambit approvals approve support-7 --cover value --note \"checked with Kim\"",
	}, func(ctx context.Context, c *client.Client, id string) error {
		switch approval.Cover(cover) {
		case approval.Once, approval.Value, approval.Source, approval.Plan:
		default:
			return usageError{fmt.Errorf("--cover is once, value, source or plan, not %q", cover)}
		}
		if digest != "" && !regexp.MustCompile(`^[0-9a-f]{12,64}$`).MatchString(digest) {
			return usageError{errors.New("--digest is 12 or more of the digits of a digest: `ambit approvals show " + id + "`")}
		}
		_, tty := terminal(a.stdin)
		if digest == "" && !yes && !tty {
			return usageError{fmt.Errorf("say what you agree to with --digest, as `ambit approvals show %s` has it, or say --yes, or run this on a terminal", id)}
		}
		q, err := c.Approval(ctx, id)
		if err != nil {
			return err
		}
		switch {
		case q.State != approval.Waiting:
			return fmt.Errorf("%s does not wait for an answer: it is %s", id, q.State)
		case !strings.HasPrefix(q.Digest, digest):
			return fmt.Errorf("%s is another call than the one with this digest: look at it with `ambit approvals show %s`; nothing was approved", id, id)
		case digest == "" && !yes:
			if err := a.confirmCall(ctx, &q); err != nil {
				return err
			}
		}
		return a.answer(ctx, c, &q, api.AnswerApproval{Digest: q.Digest, Yes: true, Note: note, Cover: approval.Cover(cover)})
	})
	c.Flags().StringVar(&note, "note", "", "for other people, and for the log")
	c.Flags().StringVar(&cover, "cover", "once", "once, value, source or plan: how far the yes goes in the rest of the task")
	c.Flags().StringVar(&digest, "digest", "", "beginning of the digest of what you agree to")
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return c
}

func (a *app) confirmCall(ctx context.Context, q *approval.Question) error {
	if err := writeQuestion(a.stderr, q, a.colorErr()); err != nil {
		return err
	}
	return a.agree(ctx, "\nLet this call run?", "nothing was answered: it goes on waiting")
}

// agree asks on the terminal, and fails with otherwise unless the answer is yes.
func (a *app) agree(ctx context.Context, question, otherwise string) error {
	line, err := a.askLine(ctx, question+" [y/N] ")
	if err != nil {
		return err
	}
	if line = strings.ToLower(line); line != "y" && line != "yes" {
		return errors.New(otherwise)
	}
	return nil
}

func (a *app) denyCommand() *cobra.Command {
	var note string
	c := a.onQuestion(&cobra.Command{
		Use:     "deny ID",
		Short:   "Say no to a call",
		Long:    "Say no to a call. One no is enough, and the agent may not ask for exactly the same in the task for an hour.",
		Example: "ambit approvals deny support-7\nambit approvals deny support-7 --note \"wrong order\"",
	}, func(ctx context.Context, c *client.Client, id string) error {
		q, err := c.Approval(ctx, id)
		if err != nil {
			return err
		}
		if q.State != approval.Waiting {
			return fmt.Errorf("%s does not wait for an answer: it is %s", id, q.State)
		}
		return a.answer(ctx, c, &q, api.AnswerApproval{Digest: q.Digest, Note: note})
	})
	c.Flags().StringVar(&note, "note", "", "why, for other people, and for the log")
	return c
}

// answer sends an answer to the question that was shown, and says what came of it.
func (a *app) answer(ctx context.Context, c *client.Client, shown *approval.Question, said api.AnswerApproval) error {
	q, err := c.AnswerApproval(ctx, shown.ID, said)
	if err != nil {
		return err
	}
	if a.json {
		if err := a.printJSON(q); err != nil {
			return err
		}
	}
	switch {
	case q.State == approval.Waiting:
		return &exitError{exitWaiting, fmt.Sprintf("your yes counts; %s is %s", q.ID, standing(&q))}
	case a.json:
		return nil
	}
	return a.print("%s is %s", q.ID, q.State)
}

func (a *app) approvalStatsCommand() *cobra.Command {
	var agent string
	c := &cobra.Command{
		Use:     "stats",
		Short:   "Show how people answer, for each tool",
		Long:    "Show how people answer, for each tool: how many calls, how long it takes, how often it is a yes, and how often an answer comes within five seconds, in which nobody reads a call. A tool with many quick yes wants a better rule.",
		Example: "ambit approvals stats\nambit approvals stats --agent support",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			id, err := optionalAgent(agent)
			if err != nil {
				return err
			}
			return a.withClient(func(c *client.Client) error {
				found, err := c.ApprovalStats(cmd.Context(), id)
				if err != nil {
					return err
				}
				return a.printApprovalStats(found)
			})
		},
	}
	c.Flags().StringVar(&agent, "agent", "", "only of this agent")
	return c
}

func (a *app) printApprovalStats(found api.ApprovalStats) error {
	if a.json {
		return a.printJSON(found)
	}
	t := table{head: []string{"AGENT", "TOOL", "ASKED", "WAITING", "APPROVED", "DENIED", "EXPIRED", "MEDIAN", "YES", "WITHIN 5 S"}}
	for _, s := range found.Stats {
		if s.Asked == 0 {
			continue
		}
		decided := s.Approved + s.Denied
		percent := func(share float64) string {
			if decided == 0 {
				return "-"
			}
			return fmt.Sprintf("%.0f %%", 100*share)
		}
		r := row{cells: []string{
			string(s.Agent), or(s.Tool, "(all)"), strconv.Itoa(s.Asked), strconv.Itoa(s.Waiting), strconv.Itoa(s.Approved), strconv.Itoa(s.Denied), strconv.Itoa(s.Expired),
			took(s.Median.Round(time.Second)), percent(s.Yes), percent(s.Quick),
		}}
		if decided >= 10 && s.Quick >= 0.5 {
			r.color, r.note = lipgloss.Yellow, "most answers come too fast for anybody to have read the call"
		}
		t.rows = append(t.rows, r)
	}
	if len(t.rows) == 0 && len(found.Missing) == 0 {
		return a.print("Nobody has been asked yet.")
	}
	if len(t.rows) > 0 {
		if err := t.write(a.stdout, a.color()); err != nil {
			return err
		}
	}
	return askedAll(found.Missing)
}
