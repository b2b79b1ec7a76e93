//go:build tools

package tools

import (
	_ "github.com/coreos/fleet"
	_ "github.com/coreos/fleet/fleetctl"
)
