package store

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mxpipe/mxpipe/transport/mtasts"
)

func openFS(t *testing.T, cfg FSConfig) *FS {
	t.Helper()
	f, err := NewFS(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func mustSave(t *testing.T, s Store, p Policy) {
	t.Helper()
	if err := s.Save(p); err != nil {
		t.Fatalf("Save(%s): %v", p.Domain, err)
	}
}

// resum replaces a text's checksum by the right one.
func resum(text []byte) ([]byte, bool) {
	i := bytes.LastIndex(text, []byte(sumKey))
	if i < 0 {
		return nil, false
	}
	sum := sha256.Sum256(text[:i])
	return fmt.Appendf(slices.Clone(text[:i]), "%s%s\n", sumKey, hex.EncodeToString(sum[:])), true
}

func TestFSSurvivesARestart(t *testing.T) {
	dir := t.TempDir()
	want := sample("example.org", "20160831085700Z")
	mustSave(t, openFS(t, FSConfig{Dir: dir}), want)
	mustLoad(t, openFS(t, FSConfig{Dir: dir}), want)
	info, err := os.Stat(dir + "/example.org.mta-sts")
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file is %v, %v", info.Mode(), err)
	}
	names, _ := filepath.Glob(dir + "/" + tempPrefix + "*")
	if len(names) != 0 {
		t.Errorf("left behind: %v", names)
	}
}

// The text on disk is fixed: a later version must read what this one wrote.
func TestFSFormat(t *testing.T) {
	body := "mxpipe mta-sts policy 1\ndomain: example.org\nid: 7\nfetched: 2026-03-01T12:00:00Z\n" +
		"version: STSv1\nmode: enforce\nmx: mx.example.org\nmx: *.backup.example.org\nmax_age: 604800\n"
	sum := sha256.Sum256([]byte(body))
	if got := string(encode(sample("example.org", "7"))); got != body+"sha256: "+hex.EncodeToString(sum[:])+"\n" {
		t.Errorf("written:\n%s", got)
	}
}

func TestFSIgnoresATornFile(t *testing.T) {
	dir := t.TempDir()
	f := openFS(t, FSConfig{Dir: dir})
	want := sample("example.org", "1")
	text := encode(want)
	name := dir + "/example.org.mta-sts"
	write := func(b []byte) {
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for n := range len(text) {
		write(text[:n])
		if p, ok, err := f.Load("example.org"); ok || !errors.Is(err, ErrDamaged) {
			t.Fatalf("cut at byte %d: %+v, %t, %v", n, p, ok, err)
		}
		// Some file systems fill the rest with zeros after a crash.
		write(append(slices.Clone(text[:n]), make([]byte, len(text)-n)...))
		if p, ok, err := f.Load("example.org"); ok || !errors.Is(err, ErrDamaged) {
			t.Fatalf("zeros from byte %d: %+v, %t, %v", n, p, ok, err)
		}
		flipped := slices.Clone(text)
		flipped[n] ^= 1
		write(flipped)
		if p, ok, err := f.Load("example.org"); ok || !errors.Is(err, ErrDamaged) {
			t.Fatalf("bit flipped in byte %d: %+v, %t, %v", n, p, ok, err)
		}
	}
	mustSave(t, f, want)
	mustLoad(t, f, want)
}

// Files with a right checksum that we would never have written.
func TestFSIgnoresAForgedFile(t *testing.T) {
	edit := func(old, new string) []byte {
		text := strings.Replace(string(encode(sample("example.org", "1"))), old, new, 1)
		forged, ok := resum([]byte(text))
		if !ok {
			t.Fatal("no checksum")
		}
		return forged
	}
	for name, text := range map[string][]byte{
		"another domain":      edit("domain: example.org", "domain: victim.example"),
		"a domain in capital": edit("domain: example.org", "domain: Example.org"),
		"a later version":     edit("policy 1\n", "policy 2\n"),
		"no id":               edit("id: 1\n", "id: \n"),
		"a strange id":        edit("id: 1\n", "id: 1;x=y\n"),
		"no time":             edit("fetched: 2026-03-01T12:00:00Z\n", ""),
		"a time elsewhere":    edit("12:00:00Z", "13:00:00+01:00"),
		"a finer time":        edit("12:00:00Z", "12:00:00.5Z"),
		"max_age too long":    edit("max_age: 604800", "max_age: 31557601"),
		"max_age with zeros":  edit("max_age: 604800", "max_age: 0604800"),
		"no mx":               edit("mx: mx.example.org\nmx: *.backup.example.org\n", ""),
		"an mx in capitals":   edit("mx: mx.", "mx: MX."),
		"an extension":        edit("mode:", "x: y\nmode:"),
		"CRLF":                edit("mode: enforce\n", "mode: enforce\r\n"),
		"blank lines":         edit("max_age: 604800\n", "max_age: 604800\n\n"),
		"text after it":       append(encode(sample("example.org", "1")), "more\n"...),
		"too large":           append(encode(sample("example.org", "1")), make([]byte, maxFileSize)...),
		"empty":               nil,
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			f := openFS(t, FSConfig{Dir: dir})
			if err := os.WriteFile(dir+"/example.org.mta-sts", text, 0o600); err != nil {
				t.Fatal(err)
			}
			if p, ok, err := f.Load("example.org"); ok || !errors.Is(err, ErrDamaged) {
				t.Errorf("Load = %+v, %t, %v", p, ok, err)
			}
			mustSave(t, f, sample("example.org", "2"))
			mustLoad(t, f, sample("example.org", "2"))
		})
	}
}

// Whatever lies in a policy's place is not trusted, does not block, and gives
// way. Opening a FIFO for reading would wait for a writer for ever; the test's
// own deadline then says so.
func TestFSReplacesWhatIsNoRegularFile(t *testing.T) {
	for name, plant := range map[string]func(t *testing.T, dir, path string){
		"a link to a policy outside": func(t *testing.T, dir, path string) {
			outside := t.TempDir() + "/policy"
			os.WriteFile(outside, encode(sample("example.org", "1")), 0o600)
			os.Symlink(outside, path)
		},
		"a link to a policy inside": func(t *testing.T, dir, path string) {
			os.WriteFile(dir+"/elsewhere", encode(sample("example.org", "1")), 0o600)
			os.Symlink("elsewhere", path)
		},
		"a link to nothing":  func(t *testing.T, dir, path string) { os.Symlink("nothing", path) },
		"a link to itself":   func(t *testing.T, dir, path string) { os.Symlink(filepath.Base(path), path) },
		"a link to a device": func(t *testing.T, dir, path string) { os.Symlink("/dev/zero", path) },
		"a FIFO":             func(t *testing.T, dir, path string) { syscall.Mkfifo(path, 0o600) },
		"a directory":        func(t *testing.T, dir, path string) { os.Mkdir(path, 0o700) },
		"a directory with content": func(t *testing.T, dir, path string) {
			os.MkdirAll(path+"/a/b", 0o700)
			os.WriteFile(path+"/a/b/c", []byte("x"), 0o600)
		},
		"a sparse terabyte": func(t *testing.T, dir, path string) {
			os.WriteFile(path, encode(sample("example.org", "1")), 0o600)
			os.Truncate(path, 1<<40)
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := dir + "/example.org.mta-sts"
			plant(t, dir, path)
			if _, err := os.Lstat(path); err != nil {
				t.Fatalf("not planted: %v", err)
			}
			f := openFS(t, FSConfig{Dir: dir})
			if p, ok, err := f.Load("example.org"); ok || !errors.Is(err, ErrDamaged) {
				t.Errorf("Load = %+v, %t, %v", p, ok, err)
			}
			mustSave(t, f, sample("example.org", "2"))
			mustLoad(t, f, sample("example.org", "2"))
			if info, err := os.Lstat(path); err != nil || !info.Mode().IsRegular() {
				t.Errorf("now it is %v, %v", info.Mode(), err)
			}
			os.Remove(path)
			plant(t, dir, path)
			if err := f.Remove("example.org"); err != nil {
				t.Errorf("Remove: %v", err)
			}
			mustMiss(t, f, "example.org")
		})
	}
}

// A link's target is never written to.
func TestFSDoesNotWriteThroughALink(t *testing.T) {
	dir, outside := t.TempDir(), t.TempDir()+"/precious"
	os.WriteFile(outside, []byte("precious"), 0o600)
	os.Symlink(outside, dir+"/example.org.mta-sts")
	mustSave(t, openFS(t, FSConfig{Dir: dir}), sample("example.org", "1"))
	if got, err := os.ReadFile(outside); string(got) != "precious" {
		t.Errorf("the target now holds %q, %v", got, err)
	}
}

func TestFSRefusesWhatIsNoDomain(t *testing.T) {
	parent := t.TempDir()
	f := openFS(t, FSConfig{Dir: parent + "/cache"})
	os.WriteFile(parent+"/secret.mta-sts", encode(sample("secret", "1")), 0o600)
	before := tree(t, parent)
	for _, domain := range []string{
		"../secret", "..", ".", "", "/etc/passwd", "a/b", "a\x00b", "..\\secret", ".hidden", "a..b", "Example.org", "example.org.",
		"b\u00fccher.example", "[192.0.2.1]", "a b", "a\nb", "*.example.org", strings.Repeat("a.", 122) + "de", tempPrefix + "x",
	} {
		if _, ok, err := f.Load(domain); ok || !errors.Is(err, ErrDomain) {
			t.Errorf("Load(%q) = %t, %v", domain, ok, err)
		}
		if err := f.Save(sample(domain, "1")); !errors.Is(err, ErrDomain) {
			t.Errorf("Save(%q): %v", domain, err)
		}
		if err := f.Remove(domain); !errors.Is(err, ErrDomain) {
			t.Errorf("Remove(%q): %v", domain, err)
		}
	}
	if after := tree(t, parent); !slices.Equal(before, after) {
		t.Errorf("files before %v, after %v", before, after)
	}
}

func tree(t *testing.T, dir string) []string {
	t.Helper()
	var names []string
	err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		names = append(names, path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestFSDoesNotSaveWhatItWouldNotReadBack(t *testing.T) {
	f := openFS(t, FSConfig{Dir: t.TempDir()})
	for name, p := range map[string]Policy{
		"bad id":  sample("example.org", "1\nmode: none"),
		"no mx":   {Domain: "example.org", ID: "1", Fetched: day, Policy: mtasts.Policy{Mode: mtasts.ModeEnforce}},
		"bad mx":  {Domain: "example.org", ID: "1", Fetched: day, Policy: mtasts.Policy{Mode: mtasts.ModeEnforce, MX: []string{"a b"}}},
		"year":    {Domain: "example.org", ID: "1", Fetched: day.AddDate(9000, 0, 0), Policy: sample("example.org", "1").Policy},
		"max_age": {Domain: "example.org", ID: "1", Fetched: day, Policy: mtasts.Policy{MaxAge: 2 * 31557600 * time.Second}},
	} {
		if err := f.Save(p); err == nil {
			t.Errorf("%s: saved", name)
		}
	}
	mustMiss(t, f, "example.org")
}

func TestFSRemovesTheOldest(t *testing.T) {
	dir := t.TempDir()
	f := openFS(t, FSConfig{Dir: dir, MaxFiles: 20})
	os.WriteFile(dir+"/README", []byte("not ours"), 0o600)
	os.WriteFile(dir+"/Not Ours.mta-sts", []byte("not ours"), 0o600)
	for i := range 21 {
		p := sample(fmt.Sprintf("d%02d.example", i), "1")
		mustSave(t, f, p)
		at := day.Add(time.Duration(i) * time.Minute)
		os.Chtimes(dir+"/"+p.Domain+suffix, at, at)
	}
	// The 21st is over the bound: nine tenths of 20 stay, itself among them.
	got, err := f.Domains()
	if err != nil || len(got) != 18 || got[0] != "d03.example" || got[17] != "d20.example" {
		t.Errorf("%d domains left: %v, %v", len(got), got, err)
	}
	for _, name := range []string{"README", "Not Ours.mta-sts"} {
		if _, err := os.Stat(dir + "/" + name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestFSBoundsItsBytes(t *testing.T) {
	one := int64(len(encode(sample("d00.example", "1"))))
	f := openFS(t, FSConfig{Dir: t.TempDir(), MaxBytes: 10 * one})
	for i := range 30 {
		mustSave(t, f, sample(fmt.Sprintf("d%02d.example", i), "1"))
	}
	got, err := f.Domains()
	if err != nil || len(got) > 10 || len(got) < 9 {
		t.Errorf("%d domains left, %v", len(got), err)
	}
}

// One domain with thousands of policies below it, large or many, pushes out its
// own, and no one else's, though theirs are older.
func TestStoresEvictFromTheDomainThatHoldsMost(t *testing.T) {
	large := sample("x.example", "1").Policy
	for i := range 200 {
		large.MX = append(large.MX, fmt.Sprintf("d%d.%s.example", i, strings.Repeat("a", 60)))
	}
	for name, tt := range map[string]struct {
		open   func(t *testing.T) Store
		policy mtasts.Policy
		from   string // the attacker's domain
	}{
		"fs, large": {func(t *testing.T) Store { return openFS(t, FSConfig{Dir: t.TempDir(), MaxBytes: 1 << 20}) }, large, "d%d.attacker.example"},
		"fs, many":  {func(t *testing.T) Store { return openFS(t, FSConfig{Dir: t.TempDir(), MaxFiles: 100}) }, sample("x.example", "1").Policy, "d%d.attacker.example"},
		"fs, many large domains": {func(t *testing.T) Store {
			return openFS(t, FSConfig{Dir: t.TempDir(), MaxBytes: 1 << 20, MaxFiles: 1000})
		}, large, "attacker%d.example"},
		"ram, large":              {func(t *testing.T) Store { return NewRAM(1 << 20) }, large, "d%d.attacker.example"},
		"ram, many":               {func(t *testing.T) Store { return NewRAM(1 << 16) }, sample("x.example", "1").Policy, "d%d.attacker.example"},
		"ram, many large domains": {func(t *testing.T) Store { return NewRAM(1 << 20) }, large, "attacker%d.example"},
	} {
		t.Run(name, func(t *testing.T) {
			s := tt.open(t)
			victim := sample("victim.example", "1")
			mustSave(t, s, victim)
			if f, ok := s.(*FS); ok {
				long := time.Now().Add(-time.Hour)
				os.Chtimes(f.cfg.Dir+"/victim.example"+suffix, long, long)
			}
			for i := range 300 {
				mustSave(t, s, Policy{Domain: fmt.Sprintf(tt.from, i), ID: "1", Fetched: day, Policy: tt.policy})
			}
			mustLoad(t, s, victim)
			if all, _ := s.Domains(); len(all) > 200 {
				t.Errorf("%d policies are kept", len(all))
			}
		})
	}
}

// Saving one domain again and again adds nothing to the count.
func TestFSCountsFilesNotWrites(t *testing.T) {
	dir := t.TempDir()
	f := openFS(t, FSConfig{Dir: dir, MaxFiles: 3})
	for i := range 3 {
		mustSave(t, f, sample(fmt.Sprintf("d%d.example", i), "1"))
	}
	for i := range 10 {
		mustSave(t, f, sample("d0.example", fmt.Sprint(i)))
	}
	if got, _ := f.Domains(); len(got) != 3 {
		t.Errorf("left: %v", got)
	}
}

func TestFSClearsAwayWhatACrashLeft(t *testing.T) {
	dir := t.TempDir()
	old, fresh := dir+"/"+tempPrefix+"OLD", dir+"/"+tempPrefix+"FRESH"
	for path, age := range map[string]time.Duration{old: 2 * time.Hour, fresh: time.Minute} {
		os.WriteFile(path, []byte("half a pol"), 0o600)
		os.Chtimes(path, day.Add(-age), day.Add(-age))
	}
	f := openFS(t, FSConfig{Dir: dir, Now: func() time.Time { return day }})
	mustSave(t, f, sample("example.org", "1"))
	if _, err := os.Stat(old); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the old one: %v", err)
	}
	if _, err := os.Stat(fresh); err != nil {
		t.Errorf("the one being written: %v", err)
	}
}

func TestFSWithoutItsDirectory(t *testing.T) {
	parent := t.TempDir()
	dir := parent + "/cache"
	f := openFS(t, FSConfig{Dir: dir})
	mustSave(t, f, sample("example.org", "1"))

	// A file in the directory's place: errors, no policy, no crash.
	os.RemoveAll(dir)
	os.WriteFile(dir, nil, 0o600)
	if err := f.Save(sample("example.org", "2")); err == nil {
		t.Error("saved into a file")
	}
	if _, ok, err := f.Load("example.org"); ok || err == nil {
		t.Errorf("Load = %t, %v", ok, err)
	}
	if _, err := f.Domains(); err == nil {
		t.Error("Domains without error")
	}
	if _, err := NewFS(FSConfig{Dir: dir}); err == nil {
		t.Error("NewFS without error")
	}

	// It is put right while we run.
	os.Remove(dir)
	if err := f.Remove("example.org"); err != nil {
		t.Errorf("Remove: %v", err)
	}
	if got, err := f.Domains(); len(got) != 0 || err != nil {
		t.Errorf("Domains = %v, %v", got, err)
	}
	mustSave(t, f, sample("example.org", "3"))
	mustLoad(t, f, sample("example.org", "3"))
}

const (
	fullDiskEnv = "MXPIPE_TEST_FULL_DISK"
	writeLimit  = 100
)

// TestFSOnAFullDisk saves in a process of its own that may write no file beyond
// 100 bytes: as on a full disk, a write succeeds in part and the next fails.
func TestFSOnAFullDisk(t *testing.T) {
	if dir := os.Getenv(fullDiskEnv); dir != "" {
		saveOnFullDisk(t, dir)
		return
	}
	dir := t.TempDir()
	f := openFS(t, FSConfig{Dir: dir})
	want := sample("example.org", "1")
	mustSave(t, f, want)

	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, "-test.run=^TestFSOnAFullDisk$", "-test.v")
	cmd.Env = append(os.Environ(), fullDiskEnv+"="+dir)
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("--- PASS: TestFSOnAFullDisk")) {
		t.Fatalf("%v\n%s", err, out)
	}
	mustLoad(t, f, want)
	if got := tree(t, dir); len(got) != 2 {
		t.Errorf("left behind: %v", got)
	}
}

func saveOnFullDisk(t *testing.T, dir string) {
	signal.Ignore(syscall.SIGXFSZ)
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
		t.Fatal(err)
	}
	limit := syscall.Rlimit{Cur: writeLimit, Max: before.Max}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
		t.Fatal(err)
	}
	defer syscall.Setrlimit(syscall.RLIMIT_FSIZE, &before)
	f := openFS(t, FSConfig{Dir: dir})
	for _, domain := range []string{"example.org", "new.example"} {
		if err := f.Save(sample(domain, "2")); !errors.Is(err, syscall.EFBIG) {
			t.Errorf("Save(%s): %v, want %v", domain, err, syscall.EFBIG)
		}
	}
	mustLoad(t, f, sample("example.org", "1"))
	mustMiss(t, f, "new.example")
}
