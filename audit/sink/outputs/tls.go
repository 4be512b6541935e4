package outputs

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
)

// Config reads the files of what the operator wrote. A key must be as private as a
// secret; see [ReadSecret].
func (t TLS) Config() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.ServerName}
	if t.CA != "" {
		text, err := os.ReadFile(t.CA)
		if err != nil {
			return nil, fmt.Errorf("reading tls.ca: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(text) {
			return nil, fmt.Errorf("reading tls.ca: %s has no certificate in PEM", t.CA)
		}
	}
	if t.Cert != "" {
		key, err := ReadSecret(t.Key)
		if err != nil {
			return nil, fmt.Errorf("reading tls.key: %w", err)
		}
		defer key.Wipe()
		text, err := os.ReadFile(t.Cert)
		if err != nil {
			return nil, fmt.Errorf("reading tls.cert: %w", err)
		}
		pair, err := tls.X509KeyPair(text, key.Reveal())
		if err != nil {
			return nil, fmt.Errorf("reading tls.cert and tls.key: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}
