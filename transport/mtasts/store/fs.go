package store

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/mxpipe/mxpipe/internal/safeio"
)

const (
	// suffix ends the name of every policy's file, which is the domain's name
	// before it. With the longest domain it makes 252 bytes; file systems take
	// 255.
	suffix = ".mta-sts"
	// tempPrefix begins the names of files being written. No domain begins
	// with a dot.
	tempPrefix = safeio.TempPrefix
	// tempAge is when a file being written counts as left behind by a crash.
	tempAge = time.Hour
)

// FSConfig says where an FS keeps its files and how many.
type FSConfig struct {
	// Dir is the directory, made when it is missing. It should be ours alone:
	// files with our names in it are replaced.
	Dir string
	// MaxFiles and MaxBytes bound the files' number and the sum of their
	// sizes; 0 means 10,000 and 256 MiB. What is removed first is of the
	// registrable domain that holds most, and was fetched longest ago.
	MaxFiles int
	MaxBytes int64
	// ReadOnly leaves the directory as it is: it is not made, and Save and
	// Remove do nothing.
	ReadOnly bool
	// Now is the wall clock; nil means time.Now.
	Now func() time.Time
}

// FS keeps each policy in a file of its own. A file is written beside its
// place, flushed, and moved there, so that a crash leaves the former one or the
// new one and never half of one. What a file says is believed only when it is
// whole, regular, small enough and about the domain that it is named for;
// anything else (a torn file, a link, a FIFO, a directory) is never followed,
// never waited for, and gives way to the next Save.
//
// The directory is opened anew for each operation, so that one that was removed
// or replaced while the daemon runs is used again as soon as it is there. No
// path leads out of it.
type FS struct {
	cfg FSConfig

	mu      sync.Mutex // never held across I/O
	counted bool       // files and bytes were counted once
	sweep   bool       // somebody counts now
	files   int
	bytes   int64
}

// NewFS makes a store in a directory. It reads nothing yet, so that a start
// with many policies is as fast as one with none. The error is that of making
// the directory; the store can be used all the same, and fails until the
// directory can be used.
func NewFS(cfg FSConfig) (*FS, error) {
	if cfg.MaxFiles <= 0 {
		cfg.MaxFiles = 10_000
	}
	if cfg.MaxBytes <= 0 {
		cfg.MaxBytes = 256 << 20
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.ReadOnly {
		return &FS{cfg: cfg}, nil
	}
	return &FS{cfg: cfg}, safeio.MkdirAll(cfg.Dir, 0o700)
}

// Load gives a domain's policy. It reads a regular file of at most 65 KiB and
// waits for nothing but the disk.
func (f *FS) Load(domain string) (Policy, bool, error) {
	if !canonical(domain) {
		return Policy{}, false, ErrDomain
	}
	root, err := os.OpenRoot(f.cfg.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return Policy{}, false, nil
	}
	if err != nil {
		return Policy{}, false, err
	}
	defer root.Close()
	text, err := readFile(root, domain+suffix)
	if errors.Is(err, fs.ErrNotExist) {
		return Policy{}, false, nil
	}
	if err != nil {
		return Policy{}, false, fmt.Errorf("%s: %w", domain+suffix, err)
	}
	p, err := decode(text)
	if err != nil || p.Domain != domain {
		return Policy{}, false, fmt.Errorf("%s: %w", domain+suffix, ErrDamaged)
	}
	return p, true, nil
}

// readFile reads a small regular file. A link is not followed, and opening a
// FIFO or a device does not wait for its other end.
func readFile(root *os.Root, name string) ([]byte, error) {
	info, err := root.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, ErrDamaged
	}
	file, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	// It may have become another file since.
	if info, err = file.Stat(); err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, ErrDamaged
	}
	text, err := io.ReadAll(io.LimitReader(file, maxFileSize+1))
	if err == nil && len(text) > maxFileSize {
		err = ErrDamaged
	}
	return text, err
}

// Save writes a policy's file. When it cannot be written, as on a full disk,
// the former file is as it was. The error may also be that of clearing away old
// files afterwards.
func (f *FS) Save(p Policy) error {
	if !canonical(p.Domain) {
		return ErrDomain
	}
	text := encode(p)
	if _, err := decode(text); err != nil {
		return fmt.Errorf("%s: it would not be read back: %w", p.Domain, err)
	}
	if f.cfg.ReadOnly {
		return nil
	}
	if err := safeio.MkdirAll(f.cfg.Dir, 0o700); err != nil {
		return err
	}
	root, err := os.OpenRoot(f.cfg.Dir)
	if err != nil {
		return err
	}
	defer root.Close()

	before, existed := size(root, p.Domain+suffix)
	if err := replaceFile(root, p.Domain+suffix, text); err != nil {
		return err
	}
	change := 1
	if existed {
		change = 0
	}
	if f.count(change, int64(len(text))-before) {
		return f.evict(root)
	}
	return nil
}

// replaceFile puts text in the place of name, whatever lies there.
func replaceFile(root *os.Root, name string, text []byte) error {
	err := safeio.WriteFile(root, name, text)
	if err == nil {
		return nil
	}
	// Only a directory withstands a rename.
	if info, failed := root.Lstat(name); failed != nil || !info.IsDir() {
		return err
	}
	if err := root.RemoveAll(name); err != nil {
		return err
	}
	return safeio.WriteFile(root, name, text)
}

// Remove removes a domain's file, or whatever lies in its place.
func (f *FS) Remove(domain string) error {
	if !canonical(domain) {
		return ErrDomain
	}
	if f.cfg.ReadOnly {
		return nil
	}
	root, err := os.OpenRoot(f.cfg.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer root.Close()
	before, existed := size(root, domain+suffix)
	if !existed {
		return nil
	}
	if err := root.RemoveAll(domain + suffix); err != nil {
		return err
	}
	f.count(-1, -before)
	return safeio.SyncDir(root)
}

// Domains gives the domains that have files, by their names alone.
func (f *FS) Domains() ([]string, error) {
	entries, err := os.ReadDir(f.cfg.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var domains []string
	for _, e := range entries {
		if domain, ok := strings.CutSuffix(e.Name(), suffix); ok && e.Type().IsRegular() && canonical(domain) {
			domains = append(domains, domain)
		}
	}
	slices.Sort(domains)
	return domains, nil
}

// count notes a change and reports whether the caller must evict: at the first
// change, when nothing was counted yet, and when there is too much.
func (f *FS) count(files int, bytes int64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.files += files
	f.bytes += bytes
	if f.sweep || f.counted && f.files <= f.cfg.MaxFiles && f.bytes <= f.cfg.MaxBytes {
		return false
	}
	f.sweep = true
	return true
}

// ours lists the files that policies lie in.
func (f *FS) ours(root *os.Root) ([]stored, error) {
	dir, err := root.Open(".")
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	var files []stored
	for _, name := range names {
		domain, ok := strings.CutSuffix(name, suffix)
		temp := strings.HasPrefix(name, tempPrefix)
		if !temp && !(ok && canonical(domain)) {
			continue // not ours: neither counted nor touched
		}
		info, err := root.Lstat(name)
		switch {
		case err != nil:
			// Gone meanwhile.
		case !temp:
			files = append(files, stored{domain, fileSize(info), info.ModTime()})
		case info.Mode().IsRegular() && f.cfg.Now().Sub(info.ModTime()) > tempAge:
			if err := root.Remove(name); ignoreMissing(err) != nil {
				return files, err
			}
		}
	}
	return files, nil
}

func size(root *os.Root, name string) (int64, bool) {
	info, err := root.Lstat(name)
	if err != nil {
		return 0, false
	}
	return fileSize(info), true
}

func fileSize(info fs.FileInfo) int64 {
	if !info.Mode().IsRegular() {
		return 0
	}
	return info.Size()
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
