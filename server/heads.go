package server

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"ambit"
	"ambit/audit"
)

const (
	defaultHeadsEvery = time.Hour
	maxHeadFile       = 64 << 10 // bytes
)

// exportHeads writes the kept head of every log into the folder for them.
func (s *Server) exportHeads(ctx context.Context) {
	ids := []ambit.AgentID{""}
	agents, err := s.cfg.Store.List(ctx)
	for _, a := range agents {
		ids = append(ids, a.ID)
	}
	for _, id := range ids {
		err = errors.Join(err, s.witness.export(ctx, s.cfg.Heads.Folder, id))
	}
	if err != nil && ctx.Err() == nil {
		s.log.Error("writing heads", slog.Any("error", err))
		s.cfg.ControlLog.alerts.Raise(ambit.High, "heads-not-written", "heads could not be written to "+s.cfg.Heads.Folder+": "+err.Error(), 0)
	}
}

// export writes the kept head of one log twice: as LOG.ID.head, which is
// replaced, and as LOG.ID.SIZE.head, which is written once and stays. A file
// that knows more than the control plane does is not replaced: then it is the
// control plane that went back, and a person has to know.
func (w *witness) export(ctx context.Context, folder string, id ambit.AgentID) error {
	kept, err := w.kept(ctx, id)
	if err != nil || kept == nil {
		return err
	}
	key, err := w.verifierKey(ctx, id)
	if err != nil {
		return err
	}
	head, err := audit.ParseHead(kept, key)
	if err != nil {
		return err
	}
	name := headName(head.Origin)
	newest := filepath.Join(folder, name+".head")
	there, err := readHead(newest, key)
	switch {
	case err != nil:
		return err
	case there.Size > head.Size || there.Size == head.Size && there.Origin != "" && there.Root != head.Root:
		w.log.alerts.Raise(ambit.Critical, "heads-disagree "+string(id),
			fmt.Sprintf("%s has a head of %d events, and the control plane kept one of %d that does not continue it: the control plane was put back to an older state, or its memory was changed", newest, there.Size, head.Size), 0)
		return nil
	}
	if err := writeOnce(filepath.Join(folder, fmt.Sprintf("%s.%020d.head", name, head.Size)), kept); err != nil {
		return err
	}
	return writeFile(newest, kept)
}

// headName makes the name of a log's files: support.00112233, control.00112233.
func headName(origin string) string {
	name := strings.TrimPrefix(strings.TrimPrefix(origin, "ambit/"), "agent/")
	return strings.ReplaceAll(name, "/", ".")
}

// readHead reads a head that was written before; the zero Head if there is none.
func readHead(path, key string) (audit.Head, error) {
	fi, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return audit.Head{}, nil
	}
	if err != nil {
		return audit.Head{}, err
	}
	if !fi.Mode().IsRegular() || fi.Size() > maxHeadFile {
		return audit.Head{}, fmt.Errorf("%s is not a head: move it away", path)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return audit.Head{}, err
	}
	h, err := audit.ParseHead(b, key)
	if err != nil {
		return audit.Head{}, fmt.Errorf("%s is not a head of this log; move it away: %w", path, err)
	}
	return h, nil
}

// writeOnce writes a file that is not there yet.
func writeOnce(path string, b []byte) error {
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return writeFile(path, b)
}
