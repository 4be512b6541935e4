package scrub

// Pieces scrubs one text that comes piece by piece, for a caller that holds back
// by itself what is undecided: between the pieces there may be framing, which
// must stay. It is not safe for concurrent use.
type Pieces struct {
	s    *Scrubber
	mask mask
}

// Pieces returns the scrubbing of one text.
func (s *Scrubber) Pieces() *Pieces {
	p := &Pieces{s: s, mask: mask{end: -1}}
	if s.m != nil {
		p.mask.scan = s.m.Scan()
	}
	return p
}

// Next scrubs b[i:] in place, together with b[:i], and returns how many of the
// last bytes of b could, with what follows, become a form: at most 511, and they
// must be the b[:i] of the next call. The error is [ErrWiped], and then nothing
// may pass.
func (p *Pieces) Next(b []byte, i int) (pending int, err error) {
	if p.s.m == nil {
		return 0, ErrWiped
	}
	p.mask.next(b, i)
	return p.mask.scan.Pending(), nil
}
