package route

import (
	"encoding/hex"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
)

// procAddrs reads this host's addresses where the kernel shows them as text:
// /proc/net, in proc_pid_net(5) and the kernel's own manual. A kernel without
// IPv6 lacks its file.
func procAddrs(dir string) ([]netip.Addr, error) {
	four, err := os.ReadFile(filepath.Join(dir, "fib_trie"))
	if err != nil {
		return nil, err
	}
	six, err := os.ReadFile(filepath.Join(dir, "if_inet6"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return append(trieAddrs(string(four)), inet6Addrs(string(six))...), nil
}

// trieAddrs finds the IPv4 addresses of this host in the routing tables. An
// address stands in a line of its own, before the lines of its routes; that of
// an interface has a route "/32 host LOCAL".
func trieAddrs(text string) (all []netip.Addr) {
	var last netip.Addr
	seen := make(map[netip.Addr]bool) // a table may be there twice
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		switch {
		case len(f) == 2 && f[0] == "|--":
			last, _ = netip.ParseAddr(f[1])
		case len(f) >= 3 && f[0] == "/32" && f[2] == "LOCAL" && last.IsValid() && !seen[last]:
			seen[last] = true
			all = append(all, last)
		}
	}
	return all
}

// inet6Addrs reads the list of IPv6 addresses, 32 hexadecimal digits at the
// start of each line.
func inet6Addrs(text string) (all []netip.Addr) {
	for line := range strings.Lines(text) {
		digits, _, _ := strings.Cut(line, " ")
		if raw, err := hex.DecodeString(digits); err == nil && len(raw) == 16 {
			all = append(all, netip.AddrFrom16([16]byte(raw)))
		}
	}
	return all
}
