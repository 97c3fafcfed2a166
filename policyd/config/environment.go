package config

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/user"
	"strconv"
	"strings"
	"syscall"
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
	// ReadSecret reads a file that holds a password, if its owner and mode keep
	// it from others. Nil leaves these files unchecked.
	ReadSecret func(name string) ([]byte, error)
	// Credentials is the content of $CREDENTIALS_DIRECTORY, where systemd puts
	// what LoadCredential= names; empty: there is none.
	Credentials string
	// Group says what is wrong with a group's name or number. Nil leaves
	// groups unchecked.
	Group func(name string) error
	// Addresses looks up a name at which the configuration has something
	// listen. Nil leaves it unchecked.
	Addresses func(name string) ([]netip.Addr, error)
}

// System gives the Environment of the machine the program runs on. Its FQDN
// may ask the resolver and takes at most five seconds.
func System() Environment {
	return Environment{
		FQDN:           fqdn,
		StateDirectory: os.Getenv("STATE_DIRECTORY"),
		ReadFile:       ReadFile,
		ReadSecret:     func(name string) ([]byte, error) { return readSecret(name, daemonUser()) },
		Credentials:    os.Getenv("CREDENTIALS_DIRECTORY"),
		Group:          findGroup,
		Addresses:      addresses,
	}
}

// daemonUser is whose passwords are read: our own, or for root, which looks at
// the service's configuration, the service's. It is -1 for root where there is
// no such user, since the daemon may run as any.
func daemonUser() int {
	if uid := os.Geteuid(); uid != 0 {
		return uid
	}
	if account, err := user.Lookup(ServiceUser); err == nil {
		if uid, err := strconv.Atoi(account.Uid); err == nil {
			return uid
		}
	}
	return -1
}

// lookupTime bounds a question to the system's resolver.
const lookupTime = 5 * time.Second

// findGroup looks for a group by its name; a number needs none.
func findGroup(name string) error {
	if _, err := strconv.ParseUint(name, 10, 31); err == nil {
		return nil
	}
	_, err := user.LookupGroup(name)
	if _, unknown := errors.AsType[user.UnknownGroupError](err); !unknown {
		return nil // a look-up that failed says nothing about the group
	}
	return err
}

// addresses asks as listen(2) would be asked for a name.
func addresses(name string) ([]netip.Addr, error) {
	ctx, cancel := context.WithTimeout(context.Background(), lookupTime)
	defer cancel()
	return net.DefaultResolver.LookupNetIP(ctx, "ip", name)
}

// fqdn does what hostname(1) -f does: a host name without a dot is completed
// from /etc/hosts or the DNS. Without success the short name has to do.
func fqdn() string {
	name, err := os.Hostname()
	if err != nil || strings.Contains(name, ".") {
		return name
	}
	ctx, cancel := context.WithTimeout(context.Background(), lookupTime)
	defer cancel()
	long, err := net.DefaultResolver.LookupCNAME(ctx, name)
	long = strings.TrimSuffix(long, ".")
	if err == nil && strings.HasPrefix(strings.ToLower(long), strings.ToLower(name)+".") {
		return long
	}
	return name
}

var errTooLarge = errors.New("the file is larger than 1 MiB")

var errNotRegular = errors.New("not a regular file")

// ReadFile reads a whole file of at most 1 MiB. It must be a regular file: a
// FIFO or a device could have its reader wait for ever. A link to one will do.
func ReadFile(name string) ([]byte, error) {
	return readChecked(name, func(fs.FileInfo) error { return nil })
}

// readSecret reads a file as ReadFile does, if nobody but root and the user can
// change it, and nobody else can read it but a group that it was given to. A
// user of -1 may be any.
func readSecret(name string, user int) ([]byte, error) {
	return readChecked(name, func(info fs.FileInfo) error {
		stat, isUnix := info.Sys().(*syscall.Stat_t)
		mode := info.Mode().Perm()
		switch {
		case isUnix && user >= 0 && stat.Uid != 0 && int(stat.Uid) != user:
			return fmt.Errorf("it belongs to the user %d, who is neither the daemon's nor root", stat.Uid)
		case mode&0o004 != 0:
			return fmt.Errorf("everybody can read it (mode %04o)", mode)
		case mode&0o022 != 0:
			return fmt.Errorf("others can change it (mode %04o)", mode)
		}
		return nil
	})
}

func readChecked(name string, check func(fs.FileInfo) error) ([]byte, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, &fs.PathError{Op: "read", Path: name, Err: errNotRegular}
	}
	if err := check(info); err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = errTooLarge
	}
	return data, err
}
