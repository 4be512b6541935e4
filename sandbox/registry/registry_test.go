package registry

import (
	"archive/tar"
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func archive(t interface{ Fatal(...any) }, entries ...tar.Header) *bytes.Buffer {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range entries {
		body := h.Linkname
		if h.Typeflag != tar.TypeReg {
			body = ""
		} else {
			h.Linkname, h.Size = "", int64(len(body))
		}
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(body)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &b
}

func file(name, body string) tar.Header { // body travels in Linkname
	return tar.Header{Name: name, Typeflag: tar.TypeReg, Linkname: body}
}

// TestB2HostilePaths: no entry of an image is written outside its folder,
// through no kind of link.
func TestB2HostilePaths(t *testing.T) {
	link := func(name, to string) tar.Header {
		return tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: to}
	}
	hard := func(name, to string) tar.Header { return tar.Header{Name: name, Typeflag: tar.TypeLink, Linkname: to} }
	for name, entries := range map[string][]tar.Header{
		"dots":                     {file("../victim", "pwned")},
		"dots within":              {file("a/../../victim", "pwned")},
		"through a link up":        {link("a", ".."), file("a/victim", "pwned")},
		"through an absolute link": {link("a", "OUTSIDE"), file("a/victim", "pwned")},
		"over a link to a file":    {link("v", "../victim"), file("v", "pwned")},
		"hard link out":            {hard("v", "../victim"), file("v", "pwned")},
		"hard link through a link": {link("a", ".."), hard("v", "a/victim"), file("v", "pwned")},
		"folder over a link":       {link("a", ".."), {Name: "a", Typeflag: tar.TypeDir, Mode: 0o777}, file("a/victim", "pwned")},
	} {
		t.Run(name, func(t *testing.T) {
			outside := t.TempDir()
			dir := filepath.Join(outside, "image")
			victim := filepath.Join(outside, "victim")
			if err := os.WriteFile(victim, []byte("whole"), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Mkdir(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			for i := range entries {
				entries[i].Linkname = strings.ReplaceAll(entries[i].Linkname, "OUTSIDE", outside)
			}
			err := unpack(t.Context(), archive(t, entries...), dir)
			if b, rerr := os.ReadFile(victim); rerr != nil || string(b) != "whole" {
				t.Errorf("the file outside is %q, %v (unpack: %v)", b, rerr, err)
			}
			if list, _ := os.ReadDir(outside); len(list) != 2 {
				t.Errorf("outside there is %v", list)
			}
		})
	}
}

// TestB2SetIDAndDevices: an image brings no set-id bit and no device node.
func TestB2SetIDAndDevices(t *testing.T) {
	dir := t.TempDir()
	suid := file("bin/su", "x")
	suid.Mode = 0o6755
	err := unpack(t.Context(), archive(t, suid,
		tar.Header{Name: "dev/mem", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 1},
		tar.Header{Name: "dev/sda", Typeflag: tar.TypeBlock, Devmajor: 8},
		tar.Header{Name: "fifo", Typeflag: tar.TypeFifo}), dir)
	if err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(filepath.Join(dir, "bin/su"))
	if err != nil || st.Mode() != 0o755 {
		t.Errorf("su has mode %v, %v", st.Mode(), err)
	}
	for _, name := range []string{"dev/mem", "dev/sda", "fifo"} {
		if _, err := os.Lstat(filepath.Join(dir, name)); err == nil {
			t.Errorf("%s was made", name)
		}
	}
}

// TestUnpackNeverEscapes tries images that are made of the pieces of attacks.
func TestUnpackNeverEscapes(t *testing.T) {
	part := rapid.SampledFrom([]string{"a", "b", "..", ".", "c", ""})
	rapid.Check(t, func(t *rapid.T) {
		outside, err := os.MkdirTemp("", "unpack")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = os.RemoveAll(outside) }()
		dir := filepath.Join(outside, "deep", "image")
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		path := rapid.Custom(func(t *rapid.T) string {
			p := strings.Join(rapid.SliceOfN(part, 1, 4).Draw(t, "parts"), "/")
			if rapid.Bool().Draw(t, "absolute") {
				p = "/" + p
			}
			if p = strings.TrimRight(p, "/"); p == "" {
				p = "a"
			}
			return p
		})
		var entries []tar.Header
		for range rapid.IntRange(1, 6).Draw(t, "n") {
			h := tar.Header{Name: path.Draw(t, "name"), Typeflag: rapid.SampledFrom([]byte{tar.TypeReg, tar.TypeSymlink, tar.TypeLink, tar.TypeDir}).Draw(t, "type"), Linkname: path.Draw(t, "link")}
			entries = append(entries, h)
		}
		_ = unpack(context.Background(), archive(t, entries...), dir)
		for _, d := range []string{outside, filepath.Join(outside, "deep")} {
			if list, err := os.ReadDir(d); err != nil || len(list) != 1 {
				t.Fatalf("%s has %v, %v", d, list, err)
			}
		}
	})
}
