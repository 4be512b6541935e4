package scan

import (
	"math/bits"
	"slices"

	"ambit"
)

// found is the distinct subjects of a Stream.
type found struct {
	list      []Subject
	known     map[string]bool   // by what Subject.String returns
	converted map[string]string // of addresses with a domain outside ASCII: as they stand, and as they are compared
	key       []byte
	// more has a bit for each hash of those that had no room.
	more *[1 << 7]uint64
}

// Subjects returns the distinct subjects, in the order in which they were first
// seen, at most [MaxSubjects].
func (f *found) Subjects() []Subject { return slices.Clone(f.list) }

// More returns how many distinct subjects there were that had no room in
// Subjects: at least as many as it says, and some 8000 at most.
func (f *found) More() (n int) {
	if f.more == nil {
		return 0
	}
	for _, w := range f.more {
		n += bits.OnesCount64(w)
	}
	return n
}

func (f *found) add(kind Kind, value []byte, international bool) {
	if international && len(f.list) < MaxSubjects && len(f.converted) < maxConversions {
		ascii, ok := f.converted[string(value)]
		if !ok {
			if f.converted == nil {
				f.converted = map[string]string{}
			}
			ascii = string(toASCII(value))
			f.converted[string(value)] = ascii
		}
		f.key = append(append(append(f.key[:0], kind...), ':'), ascii...)
	} else {
		f.key = append(append(append(f.key[:0], kind...), ':'), value...)
	}
	switch {
	case f.known[string(f.key)]:
	case len(f.list) < MaxSubjects:
		if f.known == nil {
			f.known = map[string]bool{}
		}
		key := string(f.key)
		f.known[key] = true
		f.list = append(f.list, Subject{kind, key[len(kind)+1:]})
	default:
		if f.more == nil {
			f.more = new([1 << 7]uint64)
		}
		h := hash(f.key) % (64 << 7)
		f.more[h/64] |= 1 << (h % 64)
	}
}

// hash is FNV-1a, the same in every process.
func hash(b []byte) uint64 {
	h := uint64(14695981039346656037)
	for _, c := range b {
		h = (h ^ uint64(c)) * 1099511628211
	}
	return h ^ h>>32
}

// Plain writes subjects as the log takes them.
func Plain(found []Subject) []ambit.Subject {
	if len(found) == 0 {
		return nil
	}
	out := make([]ambit.Subject, len(found))
	for i, s := range found {
		out[i] = ambit.Subject{Kind: string(s.Kind), Value: s.Value}
	}
	return out
}
