package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"runtime"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ServiceUser is the user that packages make for the daemon.
const ServiceUser = "mxpolicyd"

// AsService gives the Environment of the machine as the service's user sees it:
// for root, who may read everything, and wants to know whether the daemon can.
// For anybody else, and where there is no such user, it is System.
func AsService() Environment {
	env := System()
	if os.Geteuid() != 0 {
		return env
	}
	account, err := user.Lookup(ServiceUser)
	if err != nil {
		return env
	}
	env.ReadFile = func(name string) ([]byte, error) { return readAs(account, name, ReadFile) }
	if uid, err := strconv.Atoi(account.Uid); err == nil {
		secret := func(name string) ([]byte, error) { return readSecret(name, uid) }
		env.ReadSecret = func(name string) ([]byte, error) { return readAs(account, name, secret) }
	}
	if info, err := os.Stat(serviceCredentials); err == nil && info.IsDir() && env.Credentials == "" {
		env.Credentials = serviceCredentials
	}
	return env
}

// serviceCredentials is where systemd has the service's credentials while it
// runs.
const serviceCredentials = "/run/credentials/" + ServiceUser + ".service"

// readAs reads a file with the rights of a user. We must be root.
func readAs(account *user.User, name string, read func(name string) ([]byte, error)) (text []byte, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		// These rights are the thread's own, which ends with the goroutine
		// that keeps it.
		runtime.LockOSThread()
		if err = become(account); err == nil {
			text, err = read(name)
		}
	}()
	<-done
	if errors.Is(err, fs.ErrPermission) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fmt.Errorf("%w to the service's user %s", fs.ErrPermission, account.Username)}
	}
	return text, err
}

// become has this thread open files as a user does (setfsuid(2), whose effect
// on capabilities is that root's are gone).
func become(account *user.User) error {
	uid, errUID := strconv.Atoi(account.Uid)
	gid, errGID := strconv.Atoi(account.Gid)
	names, err := account.GroupIds()
	if err = errors.Join(errUID, errGID, err); err != nil {
		return err
	}
	groups := []uint32{uint32(gid)}
	for _, name := range names {
		if id, err := strconv.ParseUint(name, 10, 32); err == nil {
			groups = append(groups, uint32(id))
		}
	}
	// Not syscall.Setgroups, which is for all threads.
	if _, _, errno := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(groups)), uintptr(unsafe.Pointer(&groups[0])), 0); errno != 0 {
		return errno
	}
	if err := unix.Setfsgid(gid); err != nil {
		return err
	}
	return unix.Setfsuid(uid)
}
