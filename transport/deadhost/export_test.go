package deadhost

// Len gives the number of hosts remembered, dead or not.
func (h *Hosts) Len() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.byName)
}
