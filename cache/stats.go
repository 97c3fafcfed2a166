package cache

// Stats are a cache's counters since it was made, and its present size.
type Stats struct {
	Hits      uint64 // Get answered by an entry
	Misses    uint64 // Get that had to wait for a flight
	Refreshes uint64 // flights begun ahead of expiry
	Failures  uint64 // flights, refreshes included, that ended in an error
	Evictions uint64 // entries that made room for others before they expired
	// entries now, expired ones that nothing asked for included
	Entries  int
	Bytes    int64 // what they take, by Options.Cost
	MaxBytes int64 // what they may take; 0: there is no such bound
}

// Add adds the counters of another cache, and its size.
func (s *Stats) Add(o Stats) {
	s.Hits += o.Hits
	s.Misses += o.Misses
	s.Refreshes += o.Refreshes
	s.Failures += o.Failures
	s.Evictions += o.Evictions
	s.Entries += o.Entries
	s.Bytes += o.Bytes
	s.MaxBytes += o.MaxBytes
}

// Usage is how much of its bound something takes that remembers.
type Usage struct {
	Entries  int
	Bytes    int64 // that they take
	MaxBytes int64 // that they may take
}

// Add adds what another one takes.
func (u *Usage) Add(o Usage) {
	u.Entries += o.Entries
	u.Bytes += o.Bytes
	u.MaxBytes += o.MaxBytes
}

// Usage gives the present size alone.
func (s Stats) Usage() Usage { return Usage{s.Entries, s.Bytes, s.MaxBytes} }
