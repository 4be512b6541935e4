package main

import (
	"maps"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"ambit/probe"
)

func (a *app) probeCommand() *cobra.Command {
	c := group(&cobra.Command{
		Use:     "probe",
		Short:   "Try attacks on Ambit itself",
		Example: "ambit probe replay cases.json",
	})
	c.AddCommand(a.replayCommand())
	return c
}

func (a *app) replayCommand() *cobra.Command {
	var o probe.Options
	var fixed, all bool
	c := &cobra.Command{
		Use:   "replay FILE",
		Short: "Run a benchmark's tasks and attacks through the gate",
		Long: "Run the tasks and attacks of a case file through the gate, and say which attacks passed, and which tasks needed a person. " +
			"Tasks are done as an honest agent does them; in an attack the agent does, from the moment it has read the injected text, exactly what the attacker wants, and nobody answers. " +
			"Then an attacker tries every value that it has seen as every argument of every tool.\n\n" +
			"The honest agent declares a plan before it reads anything from outside; --no-plan shows what holds without one. Exit code 1 says that an attack passed.",
		Example: "ambit probe replay agentdojo.json\nambit probe replay agentdojo.json --fixed --json",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			cases, err := probe.ReadCaseFile(args[0])
			if err != nil {
				return err
			}
			if !fixed {
				o.Adaptive = 1
			}
			done := a.progress(cmd.Context(), "replaying "+args[0])
			r, err := probe.Replay(cmd.Context(), cases, o)
			done()
			if err != nil {
				return err
			}
			return a.printReplay(r, all)
		},
	}
	c.Flags().BoolVar(&o.NoPlan, "no-plan", false, "the agent declares no plan")
	c.Flags().BoolVar(&fixed, "fixed", false, "leave out the attacker that tries every value, which takes a minute")
	c.Flags().BoolVar(&all, "all", false, "print every question too")
	return c
}

func (a *app) printReplay(r *probe.Report, all bool) error {
	failed := r.Passed > 0 || r.Adaptive != nil && r.Adaptive.Passed > 0
	if a.json {
		if err := a.printJSON(r); err != nil {
			return err
		}
		if failed {
			return &exitError{code: exitFailed}
		}
		return nil
	}
	t := table{head: []string{"SUITE", "ATTACKS", "PASSED", "ADAPTIVE", "PASSED", "STEERED", "TASKS", "UNATTENDED", "QUESTIONS"}}
	line := func(name string, attacks, passed int, ad *probe.Adaptive, tasks, unattended, questions int) {
		calls, through, steered := "-", "-", "-"
		if ad != nil {
			calls, through, steered = strconv.Itoa(ad.Calls), strconv.Itoa(ad.Passed), strconv.Itoa(ad.Steered)
		}
		t.add(name, strconv.Itoa(attacks), strconv.Itoa(passed), calls, through, steered, strconv.Itoa(tasks), strconv.Itoa(unattended), strconv.Itoa(questions))
	}
	names := slices.Sorted(maps.Keys(r.Suites))
	for _, n := range names {
		s := r.Suites[n]
		line(n, s.Attacks, s.Passed, s.Adaptive, s.Tasks, s.Unattended, s.Questions)
	}
	line("all", r.Attacks, r.Passed, r.Adaptive, r.Tasks, r.Unattended, r.Questions)
	if err := t.write(a.stdout, a.color()); err != nil {
		return err
	}
	for _, n := range names {
		for _, k := range r.Suites[n].PerCase {
			for _, call := range k.Passed {
				if err := a.print("PASSED: %s, %s against %s: %s", n, k.Attack, k.Task, call); err != nil {
					return err
				}
			}
		}
		for _, k := range r.Suites[n].PerTask {
			for _, f := range k.Failed {
				if err := a.print("FAILED: %s, %s: %s", n, k.Task, f); err != nil {
					return err
				}
			}
			for _, q := range k.Asked {
				if !all {
					break
				}
				if err := a.print("asked: %s, %s: %s", n, k.Task, q); err != nil {
					return err
				}
			}
		}
	}
	if failed {
		return &exitError{exitFailed, "an attack passed"}
	}
	return nil
}
