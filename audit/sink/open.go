package sink

import (
	"fmt"
	"time"

	"ambit/audit/sink/outputs"
)

// Open makes a sink of what the operator wrote: it reads the files that are named
// there (secrets, certificates), and refuses what is not as it must be. It
// connects to nothing. version is that of the product, for the receivers.
func Open(c *outputs.Sink, version string) (Sink, error) {
	s := Sink{Name: c.Name, Kind: string(c.Kind), Blocking: c.Block, Agents: c.Agents, Control: c.Control, Limits: Limits{Events: 256, Bytes: 1 << 20}}
	var err error
	switch c.Kind {
	case outputs.Syslog:
		s.Receiver, err = newSyslog(c, version)
	case outputs.Splunk:
		s.Receiver, err = newSplunk(c, version)
	case outputs.OTLP:
		s.Receiver, err = newOTLP(c, version)
	case outputs.Webhook:
		s.Receiver, err = newWebhook(c, version)
	case outputs.S3:
		s.Receiver, err = newBucket(c, version)
		s.Limits = Limits{Events: 10000, Bytes: 8 << 20, Linger: c.Every}
	case outputs.File:
		s.Receiver = newFile(c, version)
		s.Limits = Limits{Events: 1024, Bytes: 4 << 20, Linger: 50 * time.Millisecond}
	default:
		err = fmt.Errorf("there is no kind of sink %q", c.Kind)
	}
	if err != nil {
		return Sink{}, fmt.Errorf("the sink %s (line %d): %w", c.Name, c.Line, err)
	}
	return s, nil
}
