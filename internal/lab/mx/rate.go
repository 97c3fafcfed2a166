package mx

import "time"

// bucket is what a server's Rate has left.
type bucket struct {
	spent float64   // of one second's messages
	at    time.Time // when that was right
}

// inRate takes one message of a rate, and counts it as too many when there is
// none left.
func (s *Server) inRate(rate int) bool {
	if rate == 0 {
		return true
	}
	ok := false
	s.update(func(st *store) {
		now := time.Now()
		s.rate.spent = max(0, s.rate.spent-now.Sub(s.rate.at).Seconds()*float64(rate))
		s.rate.at = now
		if ok = s.rate.spent+1 <= float64(rate); ok {
			s.rate.spent++
		} else {
			st.counters.TooMany++
		}
	})
	return ok
}
