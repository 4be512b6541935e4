//go:build linux

package e2e

import (
	"archive/tar"
	"bytes"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// images is a registry of the test's own, with TLS on loopback.
type images struct {
	*upstream
	t       *testing.T
	swapped map[string]string // requests for one digest are answered with another
	layers  map[string]string // the digest of each image's layer
}

func newImages(t *testing.T) *images {
	im := &images{t: t, swapped: map[string]string{}, layers: map[string]string{}}
	store := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	im.upstream = newUpstream(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for from, to := range im.swapped {
			r.URL.Path = strings.ReplaceAll(r.URL.Path, from, to)
		}
		store.ServeHTTP(w, r)
	}))
	return im
}

// push makes an image of one layer and returns its reference.
func (im *images) push(files ...tar.Header) string {
	im.t.Helper()
	program, err := attacker()
	if err != nil {
		im.t.Fatal(err)
	}
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	for _, h := range files {
		content := []byte(nil)
		if h.Typeflag == tar.TypeReg {
			if content = []byte(secret); strings.HasSuffix(h.Name, "attacker") {
				content = program
			}
			h.Size = int64(len(content))
		}
		if err := w.WriteHeader(&h); err != nil {
			im.t.Fatal(err)
		}
		if _, err := w.Write(content); err != nil {
			im.t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		im.t.Fatal(err)
	}
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(layer.Bytes())), nil })
	if err != nil {
		im.t.Fatal(err)
	}
	img, err := mutate.ConfigFile(empty.Image, &v1.ConfigFile{OS: "linux", Architecture: runtime.GOARCH, RootFS: v1.RootFS{Type: "layers"}})
	if err != nil {
		im.t.Fatal(err)
	}
	if img, err = mutate.AppendLayers(img, l); err != nil {
		im.t.Fatal(err)
	}
	digest, err := img.Digest()
	if err != nil {
		im.t.Fatal(err)
	}
	to := fmt.Sprintf("127.0.0.1:%d/agents/test@%s", im.port, digest)
	ref, err := name.NewDigest(to)
	if err != nil {
		im.t.Fatal(err)
	}
	layerDigest, err := l.Digest()
	if err != nil {
		im.t.Fatal(err)
	}
	im.layers[to] = layerDigest.Hex
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(im.ca))
	transport := im.Client().Transport.(*http.Transport).Clone()
	transport.TLSClientConfig.RootCAs = pool
	if err := remote.Write(ref, img, remote.WithTransport(transport)); err != nil {
		im.t.Fatal(err)
	}
	return to
}

func (im *images) manifest(agent, ref string, more ...string) string {
	ca := "  registryCA: |\n    " + strings.ReplaceAll(strings.TrimSpace(im.ca), "\n", "\n    ") + "\n"
	return manifest(agent, "", append([]string{"computer:\n  image: " + ref + "\n" + ca}, more...)...)
}

var program = tar.Header{Typeflag: tar.TypeReg, Name: "bin/attacker", Mode: 0o755}

// TestImages: an image of a registry runs its program; one that is not there,
// is not what its digest says or cannot be trusted is refused with the reason.
// A hostile one (row B2) reaches nothing outside.
func TestImages(t *testing.T) {
	both(t, func(t *testing.T, h *home) {
		v := newVictim(t)
		im := newImages(t)
		good := im.push(program,
			tar.Header{Typeflag: tar.TypeReg, Name: "etc/issue", Mode: 0o644},
			tar.Header{Typeflag: tar.TypeReg, Name: "/absolute/attacker", Mode: 0o755},
			tar.Header{Typeflag: tar.TypeReg, Name: "bin/su-attacker", Mode: 0o6755},
			tar.Header{Typeflag: tar.TypeChar, Name: "null", Mode: 0o666, Devmajor: 1, Devminor: 3},
			tar.Header{Typeflag: tar.TypeBlock, Name: "disk", Mode: 0o666, Devmajor: 8, Devminor: 0},
			tar.Header{Typeflag: tar.TypeFifo, Name: "pipe", Mode: 0o666},
			tar.Header{Typeflag: tar.TypeSymlink, Name: "victim", Linkname: v.dir},
			tar.Header{Typeflag: tar.TypeSymlink, Name: "up", Linkname: "../../../../../../../.." + v.dir},
			tar.Header{Typeflag: tar.TypeSymlink, Name: "etc/ssl", Linkname: v.dir + "/folder"},
			tar.Header{Typeflag: tar.TypeSymlink, Name: "workspace", Linkname: v.dir + "/folder"},
			tar.Header{Typeflag: tar.TypeSymlink, Name: "ambit", Linkname: v.dir},
			tar.Header{Typeflag: tar.TypeSymlink, Name: "home", Linkname: v.dir},
			tar.Header{Typeflag: tar.TypeDir, Name: "closed", Mode: 0},
			tar.Header{Typeflag: tar.TypeReg, Name: "closed/file", Mode: 0},
		)
		h.deploy(im.manifest("a", good, "  command: [/bin/attacker, files, /etc/issue, /victim, /up]\n  restart: never\n"))
		h.await(func() bool { return strings.Contains(h.run("output", "a"), `"/up"`) }, 20*time.Second, "the image's program to run")
		for _, got := range attempts(t, h.run("output", "a")) {
			if got.Worked != (got.Try == "/etc/issue") {
				t.Errorf("in the image: %+v", got)
			}
		}
		h.deploy(im.manifest("a", good))
		r, err := h.try("exec", "a", "--", "/bin/su-attacker", "files", "/null", "/disk", "/proc/self/status", "/ambit/init.json", "/etc/ssl/certs/ca-certificates.crt", "/closed/file")
		if err != nil || !strings.Contains(r.stdout, `Uid:\\t1000\\t1000\\t1000\\t1000`) {
			t.Errorf("a set-user-id program of the image: %+v", r)
		}
		for _, got := range attempts(t, r.stdout) {
			if want := !strings.Contains("/null /disk", got.Try); got.Worked != want {
				t.Errorf("in the image: %+v", got)
			}
		}
		v.unchanged(t, "a hostile image")

		other := im.push(program, tar.Header{Typeflag: tar.TypeReg, Name: "other", Mode: 0o644})
		swapped := im.push(program, tar.Header{Typeflag: tar.TypeReg, Name: "swapped", Mode: 0o644})
		im.swapped[digestOf(swapped)] = digestOf(other)
		badLayer := im.push(program, tar.Header{Typeflag: tar.TypeReg, Name: "right", Mode: 0o644})
		im.swapped[im.layers[badLayer]] = im.layers[im.push(program, tar.Header{Typeflag: tar.TypeReg, Name: "wrong", Mode: 0o644})]
		zero := strings.Replace(good, digestOf(good), strings.Repeat("0", 64), 1)
		outside := im.push(program, tar.Header{Typeflag: tar.TypeReg, Name: "../../../../../../../.." + v.dir + "/new", Mode: 0o644})
		link := im.push(program, tar.Header{Typeflag: tar.TypeLink, Name: "hard", Linkname: "../../../../../../../../.." + v.dir + "/file"})
		through := im.push(program, tar.Header{Typeflag: tar.TypeSymlink, Name: "x", Linkname: v.dir}, tar.Header{Typeflag: tar.TypeReg, Name: "x/new", Mode: 0o644})
		for _, c := range []struct{ what, manifest, says string }{
			{"not in the registry", im.manifest("b", zero), "check the name and the digest"},
			{"no such name", im.manifest("b", strings.Replace(good, "agents/test", "agents/none", 1)), "check the name and the digest"},
			{"other content than the digest says", im.manifest("b", swapped), "digest"},
			{"a registry that is not trusted", manifest("b", "", "computer:\n  image: "+good+"\n"), "certificate"},
			{"a registry that is not there", manifest("b", "", "computer:\n  image: "+strings.Replace(good, fmt.Sprint(im.port), "1", 1)+"\n"), "connection refused"},
			{"a layer with other content than its digest says", im.manifest("b", badLayer), "unpacking"},
			{"a path that leads out", im.manifest("b", outside), "unsafe tar path"},
			{"a folder that is not there", manifest("b", "", "computer:\n  image: dir:/no/such/folder\n"), "dir:/no/such/folder"},
			{"a folder without anything", manifest("b", "", "computer:\n  image: dir:"+emptyDir(t)+"\n"), "nothing to run"},
		} {
			r, err := h.tryWith([]byte(c.manifest), "deploy", "-")
			if err == nil || r.code != 1 || !strings.Contains(r.stderr, c.says) {
				t.Errorf("%s: %+v", c.what, r)
			}
			if s := h.run("status", "b"); !strings.Contains(s, "failed") || strings.Contains(s, "computer     running") {
				t.Errorf("%s: %s", c.what, s)
			}
			v.unchanged(t, c.what)
		}
		for what, ref := range map[string]string{"a hard link that leads out": link, "a path through a link that leads out": through} {
			h.deploy(im.manifest("b", ref)) // such an entry is left out
			for _, got := range attempts(t, h.run("exec", "b", "--", "/bin/attacker", "files", "/hard", "/x", "/x/new")) {
				if got.Worked {
					t.Errorf("%s: %+v", what, got)
				}
			}
			v.unchanged(t, what)
		}
		h.run("wipe", "a", "--yes")
		h.run("wipe", "b", "--yes")
		v.unchanged(t, "wipe")
	})
}

func digestOf(ref string) string {
	_, digest, _ := strings.Cut(ref, "sha256:")
	return digest
}

func emptyDir(t *testing.T) string {
	dir, err := os.MkdirTemp("", "ambit-e2e-empty-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return filepath.Clean(dir)
}
