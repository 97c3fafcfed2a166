package route

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

const someTrie = `Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     |-- 192.0.2.0
        /24 link UNICAST
Local:
  +-- 0.0.0.0/0 3 0 5
     +-- 127.0.0.0/8 2 0 2
        +-- 127.0.0.0/31 1 0 0
           |-- 127.0.0.0
              /8 host LOCAL
           |-- 127.0.0.1
              /32 host LOCAL
        |-- 127.255.255.255
           /32 link BROADCAST
     +-- 192.0.2.0/24 2 0 1
        |-- 192.0.2.7
           /32 host LOCAL
        |-- 192.0.2.255
           /32 link BROADCAST
Local:
     |-- 192.0.2.7
        /32 host LOCAL
     |-- nonsense
        /32 host LOCAL
`

const someInet6 = `00000000000000000000000000000001 01 80 10 80       lo
20010db8000000000000000000000007 02 40 00 80     eth0
fe80000000000000000000000000000a 02 40 20 80     eth0
nonsense 02 40 20 80     eth0
`

func TestProcAddrs(t *testing.T) {
	want := []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("192.0.2.7")}
	six := []netip.Addr{netip.MustParseAddr("::1"), netip.MustParseAddr("2001:db8::7"), netip.MustParseAddr("fe80::a")}
	dir := t.TempDir()
	if _, err := procAddrs(dir); err == nil {
		t.Error("a /proc without anything gave no error")
	}
	if err := os.WriteFile(filepath.Join(dir, "fib_trie"), []byte(someTrie), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := procAddrs(dir); err != nil || !slices.Equal(got, want) {
		t.Errorf("without IPv6: %v, %v; want %v", got, err, want)
	}
	if err := os.WriteFile(filepath.Join(dir, "if_inet6"), []byte(someInet6), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := procAddrs(dir); err != nil || !slices.Equal(got, append(want, six...)) {
		t.Errorf("%v, %v; want %v and %v", got, err, want, six)
	}
}

// Both ways to ask this host's kernel give the same addresses.
func TestProcAddrsOfThisHost(t *testing.T) {
	got, err := procAddrs("/proc/self/net")
	if err != nil {
		t.Fatal(err)
	}
	list, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range list {
		if prefix, err := netip.ParsePrefix(a.String()); err == nil && !slices.Contains(got, prefix.Addr()) {
			t.Errorf("%v is not among %v", prefix.Addr(), got)
		}
	}
}
