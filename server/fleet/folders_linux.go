package fleet

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"ambit"
	"ambit/agent"
	"ambit/control"
	"ambit/sandbox/gvisor"
)

// owner says as which users of the host an agent's processes run. Under root
// worker and computer have one each and share a group; otherwise all of it is
// the control plane's own user.
type owner struct {
	worker, computer, group int
}

// firstUID is where agents' user ids start; see package agent.
const firstUID = 200000

func ownerOf(a agent.Agent) owner {
	if os.Geteuid() != 0 {
		return owner{os.Geteuid(), os.Geteuid(), os.Getegid()}
	}
	n := firstUID + 2*(a.UID-firstUID)
	return owner{worker: n, computer: n + 1, group: n}
}

func agentsDir(home string) string { return filepath.Join(home, "agents") }

func agentDir(home string, id ambit.AgentID) string {
	return filepath.Join(agentsDir(home), string(id))
}

// makeFolders makes an agent's folders, or puts their owners and modes right.
// The agent's folder itself is the control plane's, so that neither worker nor
// computer can replace the other's folders.
func makeFolders(home string, id ambit.AgentID, o owner) (control.Layout, error) {
	l := control.Layout(agentDir(home, id))
	for _, d := range []struct {
		path string
		uid  int
		mode os.FileMode
	}{
		{string(l), os.Geteuid(), 0o710},
		{l.State(), o.worker, 0o700}, {l.Output(), o.worker, 0o700}, {l.Run(), o.worker, 0o700}, {l.Gate(), o.worker, 0o750},
		{l.Home(), o.computer, 0o700}, {l.Workspace(), o.computer, 0o700}, {l.Computer(), o.computer, 0o700},
	} {
		if err := os.Mkdir(d.path, d.mode); err != nil && !errors.Is(err, os.ErrExist) {
			return l, fmt.Errorf("making the agent's folders: %w", err)
		}
		st, err := os.Lstat(d.path)
		if err != nil || !st.IsDir() {
			return l, fmt.Errorf("the agent's folder %s is not a folder; something replaced it, so nothing is started. Look at it, and restore the home from a backup if it was not you", d.path)
		}
		if os.Geteuid() == 0 {
			if err := os.Lchown(d.path, d.uid, o.group); err != nil {
				return l, fmt.Errorf("giving the agent its folders: %w", err)
			}
		}
		if err := os.Chmod(d.path, d.mode); err != nil {
			return l, fmt.Errorf("giving the agent its folders: %w", err)
		}
	}
	return l, nil
}

// removeAgentDir deletes an agent's folder. os.RemoveAll follows no link.
func removeAgentDir(home string, id ambit.AgentID) error {
	dir := agentDir(home, id)
	if os.Geteuid() != 0 { // folders that their owner may not write would stop it
		_ = filepath.WalkDir(dir, func(p string, e os.DirEntry, _ error) error {
			if e != nil && e.IsDir() {
				_ = os.Chmod(p, 0o700) //nolint:gosec // all of it is our own user's, as are whatever links lead to
			}
			return nil
		})
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("deleting the agent's folder: %w", err)
	}
	return nil
}

// installBinaries puts this program, and the launcher that it carries, where
// every agent's user can reach them, under names that change with the content,
// so that an upgrade in place does not change what already runs.
func installBinaries(home string) (binary, launcher string, err error) {
	src, err := os.Open("/proc/self/exe")
	if err != nil {
		return "", "", fmt.Errorf("finding this program: %w", err)
	}
	defer func() { _ = src.Close() }()
	st, err := src.Stat()
	if err != nil {
		return "", "", fmt.Errorf("finding this program: %w", err)
	}
	self, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return "", "", fmt.Errorf("finding this program: %w", err)
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %d %d", self, st.Size(), st.ModTime().UnixNano()))
	dir, id := filepath.Join(home, "bin"), hex.EncodeToString(sum[:6])
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return "", "", fmt.Errorf("making the folder for the program: %w", err)
	}
	binary = filepath.Join(dir, "ambit-"+id)
	err = install(binary, func(tmp string) error {
		if st.Mode()&0o005 == 0o005 && os.Link(self, tmp) == nil {
			return nil
		}
		return copyFile(src, tmp)
	})
	if init := gvisor.Init(); err == nil && init != nil {
		launcher = filepath.Join(dir, "ambit-init-"+id)
		err = install(launcher, func(tmp string) error { return copyFile(bytes.NewReader(init), tmp) })
	}
	if err != nil {
		return "", "", fmt.Errorf("installing the program for the agents: %w", err)
	}
	return binary, launcher, removeOthers(dir, filepath.Base(binary), filepath.Base(launcher))
}

// install makes a file that is complete or not there.
func install(path string, write func(tmp string) error) error {
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	tmp := path + ".part"
	_ = os.Remove(tmp)
	if err := write(tmp); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

func copyFile(src io.Reader, to string) error {
	dst, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(dst, src)
	return errors.Join(err, dst.Chmod(0o755), dst.Close())
}

// removeOthers deletes the programs of earlier versions; what still runs them
// keeps them open.
func removeOthers(dir string, keep ...string) error {
	list, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("clearing old programs: %w", err)
	}
	for _, e := range list {
		if !slices.Contains(keep, e.Name()) && strings.HasPrefix(e.Name(), "ambit-") {
			_ = os.Remove(filepath.Join(dir, e.Name()))
		}
	}
	return nil
}
