package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"charm.land/lipgloss/v2"
	"github.com/spf13/cobra"

	"ambit"
	"ambit/api"
	"ambit/client"
	"ambit/internal/secretbytes"
	"ambit/kek"
)

func (a *app) keysCommand() *cobra.Command {
	c := group(&cobra.Command{
		Use:   "keys",
		Short: "Look at, rotate and protect the keys of this home",
		Long: "The root key wraps every agent's keys. It is in root.key in the home: in a key file, sealed with a passphrase, or wrapped by a key in a KMS. Each agent has a key of its own that encrypts its credentials.\n\n" +
			"Rotating loses nothing, whenever it is cut short: the next start of ambit serve finishes or undoes it.",
		Example: "ambit keys status\nambit keys rotate root\nambit keys rotate support\nambit keys protect passphrase",
	})
	c.AddCommand(a.keysStatusCommand(), a.keysRotateCommand(), a.keysProtectCommand())
	return c
}

func (a *app) keysStatusCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "status [AGENT]",
		Short:   "Show how the keys are protected, and how old they are",
		Example: "ambit keys status\nambit keys status support --json",
		Args:    args(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			var id ambit.AgentID
			if len(args) == 1 {
				var err error
				if id, err = agentName(args[0]); err != nil {
					return err
				}
			}
			return a.withClient(func(c *client.Client) error {
				k, err := c.Keys(cmd.Context(), id)
				if err != nil {
					return err
				}
				return a.printKeys(k)
			})
		},
	}
}

func (a *app) printKeys(k api.Keys) error {
	if a.json {
		return a.printJSON(k)
	}
	if err := a.print("The root key is protected by %s. It is of %s.", protection(k.Root), since(k.Root.Created)); err != nil {
		return err
	}
	if len(k.Agents) == 0 {
		return a.print("There are no agents yet.")
	}
	t := table{head: []string{"AGENT", "KEY VERSION", "SINCE", "STATE"}}
	for _, g := range k.Agents {
		r := row{cells: []string{string(g.Agent), strconv.Itoa(g.Version), since(g.Created), "in force"}}
		if len(g.Old) > 0 {
			r.cells[3], r.color = "rotation not finished", lipgloss.Yellow
			r.note = fmt.Sprintf("the old key is kept until every credential is sealed with the new one: run: ambit keys rotate %s", g.Agent)
		}
		t.rows = append(t.rows, r)
	}
	return t.write(a.stdout, a.color())
}

// protection says in words how the root key is protected.
func protection(k api.RootKey) string {
	switch kek.Kind(k.Protection) {
	case kek.KeyFile:
		return "the mode of its file (root.key in the home)"
	case kek.Passphrase:
		return "a passphrase (" + k.KDF + ")"
	case kek.KMS:
		return "the KMS key " + k.URL
	}
	return k.Protection
}

func since(t time.Time) string {
	if t.IsZero() {
		return "an unknown time"
	}
	return clock(t)
}

func (a *app) keysRotateCommand() *cobra.Command {
	var file, agent string
	c := &cobra.Command{
		Use:   "rotate root|AGENT",
		Short: "Put a new key in the place of one",
		Long: "Rotate the root key: a new one wraps every agent's keys, protected in the same way. Or rotate an agent's key: every credential of that agent is sealed with a new one, and the old one is destroyed. Nothing stops meanwhile.\n\n" +
			"Backups of root.key and control.db go together: one from before a rotation does not open with the other from after it.",
		Example: "ambit keys rotate root\nambit keys rotate root --passphrase-file /run/credentials/ambit/passphrase\nambit keys rotate support",
		Args:    args(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case len(args) == 0 && agent == "", len(args) == 1 && agent != "":
				return usageError{errors.New("say one thing to rotate: ambit keys rotate root, or ambit keys rotate AGENT")}
			case agent != "":
				return a.rotateAgent(cmd.Context(), agent)
			case args[0] != "root":
				return a.rotateAgent(cmd.Context(), args[0])
			}
			return a.withClient(func(c *client.Client) error { return a.rotateRoot(cmd.Context(), c, file) })
		},
	}
	c.Flags().StringVar(&file, "passphrase-file", "", passphraseHelp)
	c.Flags().StringVar(&agent, "agent", "", "the agent, if it is one that is called root")
	return c
}

func (a *app) rotateAgent(ctx context.Context, name string) error {
	return a.withAgent([]string{name}, func(c *client.Client, id ambit.AgentID) error {
		done := a.progress(ctx, "sealing the credentials of "+string(id)+" again")
		k, err := c.RotateKey(ctx, id)
		done()
		if err != nil {
			return began(err)
		}
		if a.json {
			return a.printJSON(k)
		}
		return a.print("%s has key version %d; %d credentials were sealed with it, and the old key is destroyed", id, k.Version, k.Credentials)
	})
}

func (a *app) rotateRoot(ctx context.Context, c *client.Client, file string) error {
	k, err := c.Keys(ctx, "")
	if err != nil {
		return err
	}
	var p secretbytes.Bytes
	if kek.Kind(k.Root.Protection) == kek.Passphrase {
		if p, err = a.passphrase(ctx, passphraseFile(file), "Passphrase of the root key: ", false); err != nil {
			return err
		}
		defer p.Wipe()
	}
	return a.changeRoot(ctx, c, api.ChangeRoot{Passphrase: p.Reveal()})
}

func (a *app) changeRoot(ctx context.Context, c *client.Client, r api.ChangeRoot) error {
	done := a.progress(ctx, "wrapping every key with a new root key")
	k, err := c.ChangeRoot(ctx, r)
	done()
	if err != nil {
		return began(err)
	}
	if a.json {
		return a.printJSON(k)
	}
	next := ""
	if kek.Kind(k.Protection) == kek.Passphrase {
		next = " The next start of ambit serve asks for it, or reads it from --passphrase-file or AMBIT_PASSPHRASE_FILE: without it the agents' data cannot be opened."
	}
	return a.print("A new root key is in force, protected by %s.%s Back up root.key and control.db together.", protection(k), next)
}

// began is what is said when a change was interrupted.
func began(err error) error {
	if errors.Is(err, context.Canceled) {
		return &exitError{exitInterrupted, "interrupted: if it had begun, ambit serve finishes it; `ambit keys status` shows how it went"}
	}
	return err
}

func (a *app) keysProtectCommand() *cobra.Command {
	var file string
	c := &cobra.Command{
		Use:   "protect file|passphrase|kms [URL]",
		Short: "Protect the root key in another way",
		Long: "Protect the root key in another way. That makes a new root key, since a copy of the old one may be wherever its file was.\n\n" +
			"  file             32 bytes in root.key, which only its mode protects\n" +
			"  passphrase       sealed with a passphrase (argon2id), which every start of ambit serve needs; again, to change it\n" +
			"  kms URL          wrapped by a key in a KMS, which every start of ambit serve must reach:\n" +
			"                   hashivault://KEY (OpenBao and Vault: transit), awskms://ID?region=REGION,\n" +
			"                   gcpkms://projects/P/locations/L/keyRings/R/cryptoKeys/K, azurekeyvault://NAME.vault.azure.net/keys/K\n\n" +
			"The KMS's own settings and credentials are those in the environment of ambit serve.",
		Example: "ambit keys protect passphrase\nambit keys protect passphrase --passphrase-file new.txt\nambit keys protect kms hashivault://ambit\nambit keys protect file",
		Args:    args(cobra.RangeArgs(1, 2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, r := cmd.Context(), api.ChangeRoot{Protection: args[0]}
			kind := kek.Kind(args[0])
			switch {
			case kind != kek.KeyFile && kind != kek.Passphrase && kind != kek.KMS:
				return usageError{fmt.Errorf("%q is not a way to protect the root key: file, passphrase or kms", args[0])}
			case kind != kek.KMS && len(args) == 2:
				return usageError{fmt.Errorf("%s takes nothing more: a passphrase is asked for, or read from --passphrase-file", kind)}
			case kind == kek.KMS && len(args) == 1:
				return usageError{errors.New("say which key of the KMS: ambit keys protect kms hashivault://ambit")}
			case kind == kek.KMS:
				if err := kek.CheckURL(args[1]); err != nil {
					return usageError{err}
				}
				r.URL = args[1]
			case kind == kek.Passphrase:
				p, err := a.passphrase(ctx, passphraseFile(file), "New passphrase of the root key: ", true)
				if err != nil {
					return err
				}
				defer p.Wipe()
				r.Passphrase = p.Reveal()
			}
			return a.withClient(func(c *client.Client) error { return a.changeRoot(ctx, c, r) })
		},
	}
	c.Flags().StringVar(&file, "passphrase-file", "", "file with the new passphrase; default $AMBIT_PASSPHRASE_FILE, then a question on the terminal")
	return c
}
