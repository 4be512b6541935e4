package inside

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// DefaultPath is PATH inside.
const DefaultPath = BinDir + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Environ is the environment that every program inside starts from: where the
// proxy and the trust store are, under all the names that programs read.
func Environ(agent string) []string {
	proxy := "http://" + ProxyAddr
	return []string{
		"PATH=" + DefaultPath,
		"HOME=" + Home, "USER=agent", "LOGNAME=agent", "SHELL=/bin/sh", "LANG=C.UTF-8", "TMPDIR=/tmp",
		"AMBIT_AGENT=" + agent,
		"HTTP_PROXY=" + proxy, "HTTPS_PROXY=" + proxy, "http_proxy=" + proxy, "https_proxy=" + proxy,
		"NO_PROXY=localhost,127.0.0.1,::1", "no_proxy=localhost,127.0.0.1,::1",
		"NODE_USE_ENV_PROXY=1",
		"SSL_CERT_FILE=" + BundlePath, "REQUESTS_CA_BUNDLE=" + BundlePath, "CURL_CA_BUNDLE=" + BundlePath,
		"GIT_SSL_CAINFO=" + BundlePath, "AWS_CA_BUNDLE=" + BundlePath, "NODE_EXTRA_CA_CERTS=" + CAPath,
		"DENO_CERT=" + CAPath, "CARGO_HTTP_CAINFO=" + BundlePath, "PIP_CERT=" + BundlePath,
	}
}

// Merge returns env with the variables of more, which win.
func Merge(env []string, more ...string) []string {
	out := slices.Clone(env)
	for _, kv := range more {
		name, _, _ := strings.Cut(kv, "=")
		out = slices.DeleteFunc(out, func(old string) bool { return strings.HasPrefix(old, name+"=") })
		out = append(out, kv)
	}
	return out
}

// WithIntent makes every program that uses the proxy variables state intent.
func WithIntent(env []string, intent string) []string {
	u := url.URL{Scheme: "http", Host: ProxyAddr, User: url.UserPassword("intent", url.PathEscape(intent))}
	proxy := u.String()
	return Merge(env, "AMBIT_INTENT="+intent,
		"HTTP_PROXY="+proxy, "HTTPS_PROXY="+proxy, "http_proxy="+proxy, "https_proxy="+proxy)
}

// lookPath finds an executable as execvp(3) does, in the given PATH.
func lookPath(name, path string) (string, error) {
	if strings.Contains(name, "/") {
		return name, executable(name)
	}
	for _, dir := range filepath.SplitList(path) {
		if p := filepath.Join(dir, name); executable(p) == nil {
			return p, nil
		}
	}
	return "", fmt.Errorf("command not found: %q is not in PATH (%s)", name, path)
}

func executable(p string) error {
	st, err := os.Stat(p)
	switch {
	case err != nil:
		return fmt.Errorf("command not found: %q", p)
	case st.IsDir():
		return fmt.Errorf("%q is a directory", p)
	case st.Mode()&0o111 == 0:
		return fmt.Errorf("%q is not executable", p)
	}
	return nil
}
