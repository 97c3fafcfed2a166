// Package machine holds tests of a package's life: a bare Debian boots systemd
// in a container, the .deb is installed there as an administrator would, a real
// mail server sends through it, and the package is upgraded under load, taken
// back and removed. Nothing of it touches this host but a directory for
// temporary files.
//
// The container shares a network of its own with the test, in which nothing is
// but loopback: the lab's mail servers, its DNS and its MTA-STS policies.
//
// The tests need root, systemd-nspawn, and what image.sh makes, and run by
// "make packages-test", not by "make test": hence the build tag, machine.
package machine
