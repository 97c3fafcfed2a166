//go:build machine

package machine

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// dirVar names, in the environment of the second start, the directory of
// everything.
const dirVar = "MXPIPE_MACHINE_DIR"

// image is what image.sh has made.
const image = "../../bin/machine/root"

// The versions that are installed, of the same sources.
const (
	older = "1.0.0"
	newer = "1.1.0"
)

// TestMain builds the packages, which needs the network, and starts the tests
// once more without one.
func TestMain(m *testing.M) {
	if os.Getenv(dirVar) != "" {
		if err := loopback(); err != nil {
			fmt.Fprintln(os.Stderr, "machine: loopback:", err)
			os.Exit(1)
		}
		os.Exit(m.Run())
	}
	code, err := outside()
	if err != nil {
		fmt.Fprintln(os.Stderr, "machine:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

func outside() (code int, err error) {
	if os.Geteuid() != 0 {
		return 1, errors.New("these tests boot a container: run them as root, by \"make packages-test\"")
	}
	if _, err := os.Stat(filepath.Join(image, "..", "done")); err != nil {
		return 1, fmt.Errorf("%w: run \"make packages-test\"", err)
	}
	dir, err := os.MkdirTemp("", "mxpipe-machine-")
	if err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	for _, version := range []string{older, newer} {
		cmd := exec.Command("sh", "../build.sh", "v"+version, filepath.Join(dir, "packages"), "deb", "rpm")
		cmd.Env = append(os.Environ(), "ARCHES="+runtime.GOARCH)
		if out, err := cmd.CombinedOutput(); err != nil {
			return 1, fmt.Errorf("build.sh: %w\n%s", err, out)
		}
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), dirVar+"="+dir)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGTERM}
	var exit *exec.ExitError
	if err := cmd.Run(); errors.As(err, &exit) {
		return exit.ExitCode(), nil
	} else if err != nil {
		return 1, err
	}
	return 0, nil
}

// loopback brings up the one interface of the new network.
func loopback() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, request)
}
