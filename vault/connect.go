package vault

import (
	"slices"
	"strconv"

	"ambit/connector"
)

// ownHosts are the hosts of a binding if the manifest names them: a credential
// that was given for one of them is not for another.
func ownHosts(b *connector.Binding) []string {
	if !b.Connector.OwnHosts {
		return nil
	}
	return hosts(b)
}

// hosts lists the hosts of a binding, with the ports that are not usual.
func hosts(b *connector.Binding) []string {
	var all []string
	for _, h := range b.Hosts {
		for _, port := range h.Ports {
			name := h.Name
			if port != 443 {
				name += ":" + strconv.Itoa(int(port))
			}
			all = append(all, name)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// equalHosts says whether a binding has no host that the person did not see.
func equalHosts(given, now []string) bool {
	for _, h := range now {
		if !slices.Contains(given, h) {
			return false
		}
	}
	return true
}
