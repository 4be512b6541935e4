package gvisor

import (
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"ambit/internal/inside"
	"ambit/sandbox"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// ownDirs are the top-level folders that Ambit gives every computer; an image's
// own ones of these names are not used.
var ownDirs = []string{"ambit", "dev", "home", "proc", "run", "sys", "tmp", "workspace"}

// etcMounted are folders of the host's /etc that `image: host` mounts, since
// they have hundreds of small files, and etcFromHost is what it copies: what
// programs need to run, and nothing about people, keys or this machine.
var etcMounted = []string{"alternatives", "fonts"}

var etcFromHost = []string{
	"ld.so.cache", "ld.so.conf", "ld.so.conf.d", "mime.types", "localtime", "protocols",
	"services", "ssl/openssl.cnf", "chromium.d", "python3", "python3.11", "python3.12", "python3.13", "perl", "magic", "magic.mime",
	"inputrc", "terminfo", "debian_version", "os-release", "nodejs", "npmrc",
}

// prepareImage makes the computer's root and says what is mounted on it.
func prepareImage(s *sandbox.Spec) ([]specs.Mount, string, error) {
	switch {
	case s.Image == "host":
		return folderRoot(s, "/", true)
	case strings.HasPrefix(s.Image, "dir:"):
		return folderRoot(s, strings.TrimPrefix(s.Image, "dir:"), false)
	}
	root := s.ImageDir()
	if _, here := s.Pulled(); !here {
		return nil, "", fmt.Errorf("image %s was not pulled", s.Image)
	}
	r, err := os.OpenRoot(root)
	if err != nil {
		return nil, "", fmt.Errorf("opening the image: %w", err)
	}
	defer func() { _ = r.Close() }()
	for _, dir := range append(slices.Clone(ownDirs), "home/agent") {
		if err := mkdir(r, dir); err != nil {
			return nil, "", err
		}
	}
	passwd, group := readSmall(r, "etc/passwd"), readSmall(r, "etc/group")
	return nil, root, writeEtc(s, r, "etc", passwd, group)
}

// folderRoot makes a root of empty folders, on which the top-level folders of
// from are mounted read-only. /etc is a copy: of all of it, or of what
// etcFromHost names.
func folderRoot(s *sandbox.Spec, from string, host bool) ([]specs.Mount, string, error) {
	l := layout(s.Dir)
	for _, dir := range append(slices.Clone(ownDirs), "etc", "home/agent", "root", "var/tmp", "var/lib", "var/cache", "opt", "srv", "mnt") {
		if err := os.MkdirAll(filepath.Join(l.rootfs(), dir), 0o755); err != nil {
			return nil, "", fmt.Errorf("making the computer's root: %w", err)
		}
	}
	entries := []string{"bin", "sbin", "lib", "lib32", "lib64", "libx32", "usr"}
	if !host {
		var err error
		if entries, err = topLevel(from); err != nil {
			return nil, "", err
		}
	}
	var mounts []specs.Mount
	for _, name := range entries {
		m, err := placeEntry(l.rootfs(), from, name)
		if err != nil {
			return nil, "", err
		}
		mounts = append(mounts, m...)
	}
	if err := copyEtc(from, l.etc(), host); err != nil {
		return nil, "", err
	}
	r, err := os.OpenRoot(l.etc())
	if err != nil {
		return nil, "", fmt.Errorf("opening the computer's /etc: %w", err)
	}
	defer func() { _ = r.Close() }()
	accounts, group := "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n", "root:x:0:\nnogroup:x:65534:\n"
	if !host {
		accounts, group = readSmall(r, "passwd"), readSmall(r, "group")
	}
	if err := writeEtc(s, r, ".", accounts, group); err != nil {
		return nil, "", err
	}
	ro := []string{"ro", "rbind", "nosuid", "nodev"}
	mounts = append(mounts, specs.Mount{Destination: "/etc", Type: "bind", Source: l.etc(), Options: ro})
	for _, name := range etcMounted {
		source := filepath.Join(from, "etc", name)
		if st, err := os.Stat(source); !host || err != nil || !st.IsDir() {
			continue
		}
		if err := mkdir(r, name); err != nil {
			return nil, "", err
		}
		mounts = append(mounts, specs.Mount{Destination: "/etc/" + name, Type: "bind", Source: source, Options: ro})
	}
	return mounts, l.rootfs(), nil
}

func topLevel(from string) ([]string, error) {
	list, err := os.ReadDir(from)
	if err != nil {
		return nil, fmt.Errorf("image dir:%s cannot be read by the agent's user: %w; give a folder that everyone may read", from, err)
	}
	var names []string
	for _, e := range list {
		if e.Name() != "etc" && !slices.Contains(ownDirs, e.Name()) && !strings.Contains(e.Name(), ",") {
			names = append(names, e.Name())
		}
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("image dir:%s has nothing to run: a folder with usr, bin, lib is expected", from)
	}
	return names, nil
}

// placeEntry puts one top-level entry of from on root: a link as a link, a
// folder or file as a read-only mount.
func placeEntry(root, from, name string) ([]specs.Mount, error) {
	src, dst := filepath.Join(from, name), filepath.Join(root, name)
	st, err := os.Lstat(src)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("looking at the image: %w", err)
	}
	switch {
	case st.Mode()&fs.ModeSymlink != 0:
		to, err := os.Readlink(src)
		if err != nil {
			return nil, fmt.Errorf("looking at the image: %w", err)
		}
		_ = os.Remove(dst)
		return nil, os.Symlink(to, dst)
	case st.IsDir():
		if err := os.MkdirAll(dst, 0o755); err != nil {
			return nil, fmt.Errorf("making the computer's root: %w", err)
		}
	case st.Mode().IsRegular():
		if err := os.WriteFile(dst, nil, 0o644); err != nil {
			return nil, fmt.Errorf("making the computer's root: %w", err)
		}
	default:
		return nil, nil // a device or socket at the top of an image is not mounted
	}
	return []specs.Mount{{Destination: "/" + name, Type: "bind", Source: src, Options: []string{"ro", "rbind", "nosuid", "nodev"}}}, nil
}

// maxEtc bounds the copy of an image's /etc, in bytes.
const maxEtc = 64 << 20

func copyEtc(from, to string, host bool) error {
	names := []string{"."}
	if host {
		names = etcFromHost
	}
	left := int64(maxEtc)
	for _, name := range names {
		base := filepath.Join(from, "etc", name)
		err := filepath.WalkDir(base, func(p string, e fs.DirEntry, err error) error {
			if err != nil {
				return nil //nolint:nilerr // what the agent's user may not read is not copied
			}
			rel, err := filepath.Rel(filepath.Join(from, "etc"), p)
			if err != nil {
				return err
			}
			return copyEntry(p, filepath.Join(to, rel), e, &left)
		})
		if err != nil {
			return fmt.Errorf("copying the image's /etc: %w", err)
		}
	}
	return nil
}

func copyEntry(src, dst string, e fs.DirEntry, left *int64) error {
	if err := os.MkdirAll(filepath.Dir(dst), 0o755); err != nil {
		return err
	}
	switch {
	case e.IsDir():
		return os.MkdirAll(dst, 0o755)
	case e.Type()&fs.ModeSymlink != 0:
		to, err := os.Readlink(src)
		if err != nil {
			return err
		}
		return os.Symlink(to, dst)
	case !e.Type().IsRegular():
		return nil
	}
	b, err := os.ReadFile(src)
	if err != nil {
		return nil //nolint:nilerr // not readable by the agent's user, so not for the agent
	}
	if *left -= int64(len(b)); *left < 0 {
		return fmt.Errorf("it has more than %d MiB", maxEtc>>20)
	}
	return os.WriteFile(dst, b, 0o644)
}

// writeEtc writes the files of /etc that Ambit decides; dir is /etc within r.
func writeEtc(s *sandbox.Spec, r *os.Root, dir, passwd, group string) error {
	policy, err := browserPolicy(s.CA)
	if err != nil {
		return err
	}
	host := string(s.Agent)
	files := map[string]string{
		"passwd":                                 without(passwd, inside.UID) + fmt.Sprintf("agent:x:%d:%d:agent:%s:/bin/sh\n", inside.UID, inside.GID, inside.Home),
		"group":                                  without(group, inside.GID) + fmt.Sprintf("agent:x:%d:\n", inside.GID),
		"hosts":                                  "127.0.0.1 localhost " + host + "\n",
		"hostname":                               host + "\n",
		"resolv.conf":                            "nameserver 127.0.0.1\noptions timeout:5 attempts:2\n",
		"nsswitch.conf":                          "passwd: files\ngroup: files\nhosts: files dns\nservices: files\nprotocols: files\n",
		"chromium/policies/managed/ambit.json":   policy,
		"opt/chrome/policies/managed/ambit.json": policy,
		"opt/chromium/policies/managed/ambit.json": policy,
	}
	for name, content := range files {
		if err := mkdir(r, filepath.Join(dir, filepath.Dir(name))); err != nil {
			return err
		}
		p := filepath.Join(dir, name)
		if err := r.RemoveAll(p); err != nil {
			return fmt.Errorf("writing /etc/%s: %w", name, err)
		}
		if err := r.WriteFile(p, []byte(content), 0o644); err != nil {
			return fmt.Errorf("writing /etc/%s: %w", name, err)
		}
	}
	for _, name := range sandbox.TrustStores() {
		p := filepath.Join(dir, name)
		if err := mkdir(r, filepath.Dir(p)); err != nil {
			return err
		}
		if err := r.RemoveAll(p); err != nil {
			return fmt.Errorf("writing /etc/%s: %w", name, err)
		}
		if err := r.Symlink(inside.BundlePath, p); err != nil {
			return fmt.Errorf("writing /etc/%s: %w", name, err)
		}
	}
	return nil
}

// without drops the account lines of the given id and of the name agent.
func without(accounts string, id int) string {
	var b strings.Builder
	for line := range strings.Lines(accounts) {
		f := strings.Split(strings.TrimSpace(line), ":")
		if len(f) < 3 || f[0] == "agent" || f[2] == fmt.Sprint(id) {
			continue
		}
		b.WriteString(strings.TrimSpace(line) + "\n")
	}
	return b.String()
}

// browserPolicy makes Chromium trust the agent's authority (policy
// CACertificates) and keeps it from calling home.
func browserPolicy(ca string) (string, error) {
	block, _ := pem.Decode([]byte(ca))
	if block == nil {
		return "", errors.New("the agent's certificate authority is not PEM")
	}
	b, err := json.MarshalIndent(map[string]any{
		"CACertificates":              []string{base64.StdEncoding.EncodeToString(block.Bytes)},
		"ComponentUpdatesEnabled":     false,
		"BackgroundModeEnabled":       false,
		"MetricsReportingEnabled":     false,
		"SafeBrowsingEnabled":         false,
		"DnsOverHttpsMode":            "off",
		"QuicAllowed":                 false,
		"EncryptedClientHelloEnabled": false,
	}, "", "  ")
	return string(b), err
}

// mkdir makes dir in r. A link or file of an image that stands in the way is
// removed: it must not lead anywhere.
func mkdir(r *os.Root, dir string) error {
	path := ""
	for _, part := range strings.Split(filepath.Clean(dir), "/") {
		if part == "." {
			continue
		}
		path = filepath.Join(path, part)
		st, err := r.Lstat(path)
		if err == nil && st.IsDir() {
			continue
		}
		if err == nil {
			if err := r.Remove(path); err != nil {
				return fmt.Errorf("clearing /%s of the image: %w", path, err)
			}
		}
		if err := r.Mkdir(path, 0o755); err != nil {
			return fmt.Errorf("making /%s in the image: %w", path, err)
		}
	}
	return nil
}

func readSmall(r *os.Root, name string) string {
	f, err := r.Open(name)
	if err != nil {
		return ""
	}
	defer func() { _ = f.Close() }()
	b, err := io.ReadAll(io.LimitReader(f, 1<<20))
	if err != nil {
		return ""
	}
	return string(b)
}
