package connector

import "strings"

// pointerTokens takes a JSON pointer (RFC 6901) apart; "" has none.
func pointerTokens(pointer string) []string {
	if pointer == "" {
		return nil
	}
	tokens := strings.Split(pointer[1:], "/")
	for i, t := range tokens {
		tokens[i] = strings.ReplaceAll(strings.ReplaceAll(t, "~1", "/"), "~0", "~")
	}
	return tokens
}

// at returns what a pointer without "*" leads to.
func at(v any, pointer string) (any, bool) {
	for _, t := range pointerTokens(pointer) {
		m, ok := v.(map[string]any)
		if !ok {
			return nil, false
		}
		if v, ok = m[t]; !ok {
			return nil, false
		}
	}
	return v, true
}

// kept is a tree of what is kept of a result.
type kept struct {
	all   bool // all that is here
	below map[string]*kept
}

// keepTree puts pointers together.
func keepTree(pointers []string) *kept {
	root := &kept{all: len(pointers) == 0}
	for _, p := range pointers {
		n := root
		for _, t := range pointerTokens(p) {
			if n.below == nil {
				n.below = map[string]*kept{}
			}
			if n.below[t] == nil {
				n.below[t] = &kept{}
			}
			n = n.below[t]
		}
		n.all = true
	}
	return root
}

// pick returns what the tree keeps of v. "*" is every element of a list; what is
// neither a list nor an object, where one is expected, is left out.
func (k *kept) pick(v any) (any, bool) {
	if k.all {
		return v, true
	}
	switch v := v.(type) {
	case []any:
		star := k.below["*"]
		if star == nil {
			return nil, false
		}
		list := []any{}
		for _, item := range v {
			if x, ok := star.pick(item); ok {
				list = append(list, x)
			}
		}
		return list, true
	case map[string]any:
		m := map[string]any{}
		for name, below := range k.below {
			if x, given := v[name]; given {
				if x, ok := below.pick(x); ok {
					m[name] = x
				}
			}
		}
		return m, true
	}
	return nil, false
}

// rewrite replaces every text that a pointer leads to.
func rewrite(v any, tokens []string, with func(string) string) any {
	if len(tokens) == 0 {
		if s, ok := v.(string); ok {
			return with(s)
		}
		return v
	}
	switch v := v.(type) {
	case []any:
		if tokens[0] == "*" {
			for i := range v {
				v[i] = rewrite(v[i], tokens[1:], with)
			}
		}
	case map[string]any:
		if x, ok := v[tokens[0]]; ok {
			v[tokens[0]] = rewrite(x, tokens[1:], with)
		}
	}
	return v
}

// covered says whether one of the pointers is p, or leads to something above it.
func covered(p string, pointers []string) bool {
	for _, k := range pointers {
		if k == "" || k == p || strings.HasPrefix(p, k+"/") {
			return true
		}
	}
	return len(pointers) == 0
}
