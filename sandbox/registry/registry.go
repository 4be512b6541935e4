// Package registry fetches the image of an agent's computer from an OCI
// registry and unpacks it below the agent's folder.
//
// Trust: the registry is whoever the operator named; what it answers is checked
// against the digest of the manifest. The image is hostile: it is unpacked with
// the rights of the agent's own user, through os.Root, and nothing of it is run
// here. A redirect leads to the registry's own host or to a public address.
package registry

import (
	"archive/tar"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"ambit/internal/dialguard"
	"ambit/sandbox"
)

// Bounds of an unpacked image.
const (
	maxImageBytes   = 16 << 30
	maxImageEntries = 2_000_000
)

// Pull fetches the image of s and unpacks it. The registry's answer is checked
// against the digest; an image is complete or not there. A crash leaves a
// folder with another name, which the next Pull removes.
func Pull(ctx context.Context, s *sandbox.Spec) error {
	ref, err := name.NewDigest(s.Image)
	if err != nil {
		return fmt.Errorf("image %q: %w; write registry/name@sha256:…", s.Image, err)
	}
	dir := s.ImageDir()
	transport, err := registryTransport(ref.Context().RegistryStr(), s.Roots)
	if err != nil {
		return err
	}
	img, err := remote.Image(ref, remote.WithContext(ctx), remote.WithTransport(transport),
		remote.WithPlatform(v1.Platform{OS: "linux", Architecture: runtime.GOARCH}))
	if err != nil {
		return fmt.Errorf("pulling %s: %w; check the name and the digest, and that this machine reaches the registry", s.Image, err)
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return fmt.Errorf("making room for the image: %w", err)
	}
	tmp := dir + ".part"
	if err := removeTree(tmp); err != nil {
		return err
	}
	if err := os.Mkdir(tmp, 0o755); err != nil {
		return fmt.Errorf("making room for the image: %w", err)
	}
	flat := mutate.Extract(img)
	err = unpack(ctx, flat, tmp)
	if cerr := flat.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		_ = removeTree(tmp)
		return fmt.Errorf("unpacking %s: %w", s.Image, err)
	}
	// Every start puts our list where the image's is.
	if err := os.WriteFile(s.RootsFile(), []byte(sandbox.Roots(tmp)), 0o644); err != nil {
		return fmt.Errorf("keeping the image's certificate authorities: %w", err)
	}
	if err := os.Rename(tmp, dir); err != nil {
		return fmt.Errorf("finishing the image: %w", err)
	}
	return nil
}

// registryTransport reaches the registry wherever the operator put it, and any
// other host (a redirect to a blob store) only at a public address.
func registryTransport(registry, roots string) (http.RoundTripper, error) {
	t := remote.DefaultTransport.(*http.Transport).Clone()
	t.Proxy = nil
	t.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		host, _, err := net.SplitHostPort(addr)
		if err != nil {
			return nil, fmt.Errorf("dialling the registry: %w", err)
		}
		own, _, err := net.SplitHostPort(registry)
		if err != nil {
			own = registry
		}
		d := net.Dialer{Timeout: 15 * time.Second, Control: dialguard.Control(strings.EqualFold(host, own))}
		return d.DialContext(ctx, network, addr)
	}
	if roots != "" {
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool()
		}
		if !pool.AppendCertsFromPEM([]byte(roots)) {
			return nil, errors.New("computer.registryCA holds no certificate in PEM")
		}
		t.TLSClientConfig.RootCAs = pool
	}
	return t, nil
}

// unpack writes the tar stream below dir, through os.Root: no path and no link
// of the image leads out. Device nodes, sockets and set-id bits are left out.
func unpack(ctx context.Context, r io.Reader, dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	left, entries := int64(maxImageBytes), 0
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			// The archive is ended in good order also when a layer could not be
			// read or is not what its digest says; the stream tells.
			_, err := io.Copy(io.Discard, r)
			return err
		}
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if entries++; entries > maxImageEntries {
			return fmt.Errorf("more than %d files", maxImageEntries)
		}
		if left -= h.Size; left < 0 {
			return fmt.Errorf("more than %d GiB", maxImageBytes>>30)
		}
		if err := unpackEntry(root, h, tr); err != nil {
			return fmt.Errorf("%q: %w", h.Name, err)
		}
	}
}

func unpackEntry(root *os.Root, h *tar.Header, r io.Reader) error {
	name := filepath.Clean(strings.TrimPrefix(h.Name, "/"))
	if name == "." {
		return nil
	}
	if !filepath.IsLocal(name) {
		return errors.New("the path leads out of the image")
	}
	if parent := filepath.Dir(name); parent != "." {
		if err := root.MkdirAll(parent, 0o755); err != nil {
			return err
		}
	}
	perm := fs.FileMode(h.Mode) & 0o777
	if h.Typeflag != tar.TypeDir {
		if err := root.RemoveAll(name); err != nil {
			return err
		}
	}
	switch h.Typeflag {
	case tar.TypeDir:
		if err := root.MkdirAll(name, 0o755); err != nil {
			return err
		}
		return root.Chmod(name, perm|0o700)
	case tar.TypeReg:
		f, err := root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, perm|0o400)
		if err != nil {
			return err
		}
		if _, err := io.CopyN(f, r, h.Size); err != nil {
			_ = f.Close()
			return err
		}
		return f.Close()
	case tar.TypeSymlink:
		// Links are followed only inside the computer, whose root is this folder.
		return root.Symlink(h.Linkname, name)
	case tar.TypeLink:
		target := filepath.Clean(strings.TrimPrefix(h.Linkname, "/"))
		if !filepath.IsLocal(target) {
			return errors.New("the hard link leads out of the image")
		}
		return root.Link(target, name)
	}
	return nil
}

// removeTree is os.RemoveAll for trees with folders that their owner may not
// write.
func removeTree(dir string) error {
	if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	err := filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if e != nil && e.IsDir() {
			return os.Chmod(p, 0o700) //nolint:gosec // nothing else writes below a folder of this name
		}
		return err
	})
	if err != nil && !errors.Is(err, syscall.ENOENT) {
		return fmt.Errorf("clearing %s: %w", dir, err)
	}
	return os.RemoveAll(dir)
}
