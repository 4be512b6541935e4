package notify

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// state is the file with the positions.
type state struct {
	path string

	mu   sync.Mutex // held while writing
	file stateFile  // as it was read or last written
}

type stateFile struct {
	Version      int                  `json:"version"`
	Destinations map[string]destState `json:"destinations"`
}

// destState is what is kept of one destination.
type destState struct {
	Since time.Time           `json:"since"` // when there was first such a destination
	Told  map[string]position `json:"told"`  // by source
}

const stateVersion = 1

func openState(path string) (*state, error) {
	s := &state{path: path, file: stateFile{Version: stateVersion}}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the positions: %w", err)
	}
	err = json.Unmarshal(b, &s.file)
	switch {
	case err != nil:
		return nil, fmt.Errorf("reading the positions in %s: %w; move the file away, and notifications go on with what is new", path, err)
	case s.file.Version != stateVersion:
		return nil, fmt.Errorf("the positions in %s were written by a newer Ambit (version %d, this one knows %d): use that one, or move the file away", path, s.file.Version, stateVersion)
	}
	return s, nil
}

// of is what is known of a destination; of a new one that it is new.
func (s *state) of(name string, now time.Time) destState {
	s.mu.Lock()
	defer s.mu.Unlock()
	d, known := s.file.Destinations[name]
	if !known {
		d.Since = now.UTC()
	}
	if d.Told == nil {
		d.Told = map[string]position{}
	}
	return d
}

// save writes the positions, so that after a crash those before or these are
// there.
func (s *state) save(all map[string]destState) (err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	file := stateFile{Version: stateVersion, Destinations: all}
	b, err := json.Marshal(file)
	if err != nil {
		return err
	}
	// open(O_EXCL), write, fsync, rename, fsync(folder)
	tmp, err := os.CreateTemp(filepath.Dir(s.path), "."+filepath.Base(s.path)+"-*") // 0600
	if err != nil {
		return fmt.Errorf("writing the positions: %w", err)
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("writing the positions: %w", err)
			_ = os.Remove(tmp.Name())
		}
	}()
	_, err = tmp.Write(append(b, '\n'))
	if err = errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp.Name(), s.path); err != nil {
		return err
	}
	folder, err := os.Open(filepath.Dir(s.path))
	if err != nil {
		return err
	}
	s.file = file
	return errors.Join(folder.Sync(), folder.Close())
}
