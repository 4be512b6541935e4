package agent

import (
	"bytes"
	"context"
	"crypto/cipher"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"ambit/internal/secretbytes"
	"ambit/internal/sqldb"
	"ambit/kek"
)

// nextSuffix is what the name of a new root key has until it is in force.
const nextSuffix = ".new"

// errTorn is returned when it is not known which root key is in force.
var errTorn = errors.New("the rotation of the root key ended in an error, and it is not known how far it came: restart ambit serve, which finishes or undoes it")

// Root says how the root key is protected, and since when it is in force.
type Root struct {
	kek.Info
	Created time.Time // zero is unknown
}

func (s *Store) rootPath() string { return filepath.Join(s.home, "root.key") }

// Root returns how the root key is protected.
func (s *Store) Root(ctx context.Context) (Root, error) {
	s.rooted.RLock()
	defer s.rooted.RUnlock()
	var created int64
	if err := s.db.QueryRow(ctx, "SELECT root_created FROM agent_home", nil, &created); err != nil {
		return Root{}, err
	}
	r := Root{Info: s.info}
	if created != 0 {
		r.Created = time.UnixMicro(created).UTC()
	}
	return r, nil
}

// arenaSize is room for the root key and the one that replaces it, in bytes.
const arenaSize = 4096

// openRoot takes the root key that control.db knows, or in a home without
// agents the one that is there, or a new one.
func (s *Store) openRoot(ctx context.Context) error {
	check, err := s.rootCheck(ctx)
	fresh := errors.Is(err, sql.ErrNoRows)
	if err != nil && !fresh {
		return err
	}
	if fresh {
		if err := s.firstRoot(ctx); err != nil {
			return fmt.Errorf("making the root key: %w", err)
		}
	}
	if s.arena, err = secretbytes.NewArena(arenaSize); err != nil {
		return err
	}
	f, err := settle(s.rootPath(), check)
	if err != nil {
		return err
	}
	defer f.Wipe()
	key, err := f.Open(ctx, s.unlock)
	if err != nil {
		return fmt.Errorf("opening %s: %w", s.rootPath(), err)
	}
	s.root, s.info = s.arena.Take(key.Reveal()), f.Info()
	if !fresh {
		return nil
	}
	return s.db.Write(ctx, func(tx *sqldb.Tx) error {
		_, err := tx.Exec(ctx, "INSERT INTO agent_home (id, next_uid, root_check, root_created) VALUES (1, ?, ?, ?)", firstUID, kek.Check(s.root), now().UnixMicro())
		return err
	})
}

func (s *Store) rootCheck(ctx context.Context) (check []byte, err error) {
	err = s.db.QueryRow(ctx, "SELECT root_check FROM agent_home", nil, &check)
	return check, err
}

// firstRoot makes a key file if there is none. A crash after it, and before
// control.db knows the key, leaves a key that the next Open takes up; one within
// it leaves a file under the other name on which nothing depends.
func (s *Store) firstRoot(ctx context.Context) error {
	path := s.rootPath()
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return err // nil: it is there
	}
	key := kek.NewKey()
	defer key.Wipe()
	f, err := kek.Seal(ctx, key, kek.Protection{Kind: kek.KeyFile}, nil)
	if err != nil {
		return err
	}
	defer f.Wipe()
	if err := os.Remove(path + nextSuffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := f.Write(path + nextSuffix); err != nil {
		return err
	}
	return kek.Replace(path+nextSuffix, path)
}

// settle finishes or undoes a rotation that was cut short, and returns the file
// that check is of; any file, if check is nil. What control.db says is in force.
func settle(path string, check []byte) (*kek.File, error) {
	f, err := kek.Read(path)
	if err == nil && (check == nil || f.Matches(check)) {
		// Nothing was begun, or it did not come as far as control.db.
		if err := os.Remove(path + nextSuffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("undoing the rotation of the root key: %w", err)
		}
		return f, nil
	}
	next, nextErr := kek.Read(path + nextSuffix)
	switch {
	case nextErr == nil && next.Matches(check):
		// It came as far as control.db, and not to the last step.
		return next, kek.Replace(path+nextSuffix, path)
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%s is missing, and control.db beside it needs it: restore it from a backup; without it the agents' data cannot be opened", path)
	case err != nil:
		return nil, err
	}
	return nil, fmt.Errorf("%s is not the key that control.db beside it was made with: restore the right one from a backup", path)
}

// RotateRoot puts a new root key in force, protected as the one before: the
// passphrase must be the one in use, where there is one.
func (s *Store) RotateRoot(ctx context.Context, passphrase secretbytes.Bytes) error {
	s.rotating.Lock()
	defer s.rotating.Unlock()
	f, err := s.settled(ctx)
	if err != nil {
		return err
	}
	defer f.Wipe()
	p := kek.Protection{Kind: f.Info().Kind, Passphrase: passphrase, URL: f.Info().URL}
	if p.Kind == kek.Passphrase {
		copied := func(context.Context) (secretbytes.Bytes, error) {
			return secretbytes.New(append([]byte(nil), passphrase.Reveal()...)), nil
		}
		key, err := f.Open(ctx, kek.Unlock{Passphrase: copied})
		if err != nil {
			return fmt.Errorf("nothing was changed: %w", err)
		}
		key.Wipe()
	}
	return s.replaceRoot(ctx, p)
}

// ProtectRoot puts a new root key in force, protected as p says. The key is a
// new one, because a copy of the old one may be wherever its file was.
func (s *Store) ProtectRoot(ctx context.Context, p kek.Protection) error {
	s.rotating.Lock()
	defer s.rotating.Unlock()
	f, err := s.settled(ctx)
	if err != nil {
		return err
	}
	f.Wipe()
	return s.replaceRoot(ctx, p)
}

func (s *Store) settled(ctx context.Context) (*kek.File, error) {
	check, err := s.rootCheck(ctx)
	if err != nil {
		return nil, err
	}
	return settle(s.rootPath(), check)
}

// replaceRoot puts a new root key in force in four steps. s.rotating is held.
//
//  1. The new key is sealed and written to root.key.new, durably. A crash
//     before the next step: control.db knows root.key, and Open removes the other.
//  2. One transaction wraps every key of every agent with it and makes
//     control.db know it. From here on it is in force.
//  3. root.key.new takes the place of root.key. A crash before this: control.db
//     knows root.key.new, and Open does this step.
//  4. The journal of control.db, which has the keys as they were wrapped
//     before, is emptied. A crash before this: it is emptied when the database is
//     opened and written to next.
func (s *Store) replaceRoot(ctx context.Context, p kek.Protection) error {
	key, f, err := s.writeNext(ctx, p)
	if err != nil {
		return fmt.Errorf("nothing was changed: %w", err)
	}
	defer f.Wipe()
	if err := s.enforce(ctx, key, f.Info()); err != nil {
		key.Wipe()
		return err
	}
	if err := kek.Replace(s.rootPath()+nextSuffix, s.rootPath()); err != nil {
		return fmt.Errorf("the new root key is in force and in %s, but not yet in its place (the next start of ambit serve puts it there): %w", s.rootPath()+nextSuffix, err)
	}
	if err := s.overwrite(ctx); err != nil {
		return fmt.Errorf("the new root key is in force, but keys that the old one wrapped are still on the disk: %w", err)
	}
	return nil
}

func (s *Store) writeNext(ctx context.Context, p kek.Protection) (secretbytes.Bytes, *kek.File, error) {
	key := kek.NewKey()
	f, err := kek.Seal(ctx, key, p, s.unlock.Keeper)
	if err == nil {
		err = f.Write(s.rootPath() + nextSuffix)
	}
	if err != nil {
		key.Wipe()
		return secretbytes.Bytes{}, nil, err
	}
	return key, f, nil
}

// enforce is the second step. It owns key if it returns nil; the caller wipes it
// otherwise.
func (s *Store) enforce(ctx context.Context, key secretbytes.Bytes, info kek.Info) error {
	s.rooted.Lock()
	defer s.rooted.Unlock()
	if s.torn {
		return errTorn
	}
	if err := s.rewrap(ctx, key); err != nil {
		// A commit that failed may have happened: the database knows.
		check, readErr := s.rootCheck(context.WithoutCancel(ctx))
		switch {
		case readErr != nil:
			s.torn = true
			return errors.Join(errTorn, err, readErr)
		case !bytes.Equal(check, kek.Check(key)):
			return errors.Join(fmt.Errorf("nothing was changed: wrapping the agents' keys with the new root key: %w", err), os.Remove(s.rootPath()+nextSuffix))
		}
	}
	s.root.Wipe()
	s.root, s.info = s.arena.Take(key.Reveal()), info
	return nil
}

// rewrap makes every row in one transaction one of the new root key. s.rooted
// is held: nobody wraps with the old one meanwhile.
func (s *Store) rewrap(ctx context.Context, key secretbytes.Bytes) error {
	before, err := s.aead()
	if err != nil {
		return err
	}
	after, err := newAEAD(key)
	if err != nil {
		return err
	}
	return s.db.Write(ctx, func(tx *sqldb.Tx) error {
		if _, err := tx.Exec(ctx, "PRAGMA secure_delete = on"); err != nil {
			return err
		}
		rows, err := s.wrapped(ctx, tx.Query, "")
		if err != nil {
			return err
		}
		for _, w := range rows {
			plain, err := unseal(before, w)
			if err != nil {
				return err
			}
			box := seal(after, w, plain)
			plain.Wipe()
			if err := oneRow(tx.Exec(ctx, "UPDATE agent_keys SET wrapped = ? WHERE agent = ? AND purpose = ? AND version = ?", box, string(w.agent), w.purpose, w.version)); err != nil {
				return err
			}
		}
		if err := rewrapControl(ctx, tx, before, after); err != nil {
			return err
		}
		return oneRow(tx.Exec(ctx, "UPDATE agent_home SET root_check = ?, root_created = ?", kek.Check(key), now().UnixMicro()))
	})
}

func rewrapControl(ctx context.Context, tx *sqldb.Tx, before, after cipher.AEAD) error {
	rows, err := wrappedControl(ctx, tx.Query)
	if err != nil {
		return err
	}
	for _, w := range rows {
		plain, err := unseal(before, w)
		if err != nil {
			return err
		}
		box := seal(after, w, plain)
		plain.Wipe()
		if err := oneRow(tx.Exec(ctx, "UPDATE control_keys SET wrapped = ? WHERE purpose = ?", box, w.purpose)); err != nil {
			return err
		}
	}
	return nil
}
