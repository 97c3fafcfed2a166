package config

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"time"
)

// Environment is what the machine adds to a configuration file. It is passed
// in, so that the same file and the same Environment always give the same
// Config.
type Environment struct {
	// FQDN gives this host's fully qualified name, the default of hostname.
	// It is called at most once, and only when the file does not set
	// hostname. Nil gives no name, which makes hostname required.
	FQDN func() string
	// StateDirectory is the content of $STATE_DIRECTORY as systemd sets it,
	// absolute paths separated by colons of which the first counts. It is the
	// default of state_dir; empty means DefaultStateDir.
	StateDirectory string
	// ReadFile reads a file that the configuration names (root_ca, cert,
	// key), to check that it is there and holds what it must. Nil leaves
	// these files unchecked.
	ReadFile func(name string) ([]byte, error)
}

// System gives the Environment of the machine the program runs on. Its FQDN
// may ask the resolver and takes at most five seconds.
func System() Environment {
	return Environment{
		FQDN:           fqdn,
		StateDirectory: os.Getenv("STATE_DIRECTORY"),
		ReadFile:       readBounded,
	}
}

// fqdn does what hostname(1) -f does: a host name without a dot is completed
// from /etc/hosts or the DNS. Without success the short name has to do.
func fqdn() string {
	name, err := os.Hostname()
	if err != nil || strings.Contains(name, ".") {
		return name
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	long, err := net.DefaultResolver.LookupCNAME(ctx, name)
	long = strings.TrimSuffix(long, ".")
	if err == nil && strings.HasPrefix(strings.ToLower(long), strings.ToLower(name)+".") {
		return long
	}
	return name
}

var errTooLarge = errors.New("the file is larger than 1 MiB")

// readBounded reads a whole file of at most maxFile bytes.
func readBounded(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = errTooLarge
	}
	return data, err
}
