package config

import _ "embed"

//go:embed mxpolicyd.yaml
var reference string

// Reference gives the commented configuration file that packages install at
// DefaultPath. It holds every key and configures exactly what Default does.
func Reference() string { return reference }
