package mocks

// set is set_config: "" leaves a setting as it is.
func (s *session) set(idle, idleInTransaction string, temporary bool) {
	to := []*config{&s.config}
	switch {
	case s.tx == nil && temporary:
		return
	case s.tx != nil && !temporary:
		to = append(to, &s.tx.base)
	}
	for _, c := range to {
		if idle != "" {
			c.idle = idle
		}
		if idleInTransaction != "" {
			c.idleInTransaction = idleInTransaction
		}
	}
}

// changed sets the witness that q has for a change of the settings.
func (s *session) changed(q *question) {
	if q.Gen != "" {
		s.witness = q.Gen
	}
}

// temporary reports whether the lease that q asks for is to end with the
// transaction.
func (s *session) temporary(q *question) bool {
	home := s.config.idle + "/" + s.config.idleInTransaction
	return q.Lease != "" && !q.Sure && !(s.xact != q.Marked && home == q.Home) && (q.Gen == "" || s.witness == q.Gen)
}

// begin begins a transaction of the caller's.
func (s *session) begin() {
	s.xact++
	s.tx = &transaction{s.config, s.config, s.witness}
}

// finish ends it.
func (s *session) finish(commit bool) {
	if s.tx == nil {
		return
	}
	if s.config = s.tx.base; !commit {
		s.config, s.witness = s.tx.before, s.tx.witness
	}
	s.tx = nil
}
