package format

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// schema is the part of OCSF that the tests need, read from the files of its
// repository, and a validator that is stricter than most: what is not in a class
// is refused, also deprecated attributes, empty values, names that are not the
// captions of their numbers, and attributes of profiles that the event does not
// say it has.
type schema struct {
	root       string
	dictionary map[string]attribute
	types      map[string]typeSpec
	categories map[string]struct{ UID int }
	classes    map[int]*definition // by class_uid
	objects    map[string]*definition
	used       map[string]bool
	patterns   map[string]*regexp.Regexp
}

func (s *schema) pattern(expr string) *regexp.Regexp {
	if s.patterns[expr] == nil {
		s.patterns[expr] = regexp.MustCompile(expr)
	}
	return s.patterns[expr]
}

type attribute struct {
	Type        string
	IsArray     bool `json:"is_array"`
	Requirement string
	Profile     string
	Sibling     string
	Enum        map[string]struct{ Caption string }
	Deprecated  json.RawMessage `json:"@deprecated"`
	Suppress    []string        `json:"suppress_checks"`
}

type typeSpec struct {
	Type   string
	Regex  string
	MaxLen int `json:"max_len"`
	Range  []float64
}

type definition struct {
	UID         int
	Name        string
	Category    string
	Extends     string
	Attributes  map[string]json.RawMessage
	Constraints map[string][]string
	Profiles    []string
	resolved    map[string]attribute
}

func (s *schema) read(name string, v any) error {
	text, err := os.ReadFile(filepath.Join(s.root, filepath.FromSlash(name)))
	if err != nil {
		return err
	}
	s.used[name] = true
	return json.Unmarshal(text, v)
}

func loadSchema(root string) (*schema, error) {
	s := &schema{root: root, classes: map[int]*definition{}, objects: map[string]*definition{}, used: map[string]bool{}, patterns: map[string]*regexp.Regexp{}}
	var version struct{ Version string }
	if err := s.read("version.json", &version); err != nil {
		return nil, err
	}
	if version.Version != OCSFVersion {
		return nil, fmt.Errorf("the schema is %s, and what is written %s", version.Version, OCSFVersion)
	}
	var dictionary struct {
		Attributes map[string]attribute
		Types      struct{ Attributes map[string]typeSpec }
	}
	if err := s.read("dictionary.json", &dictionary); err != nil {
		return nil, err
	}
	s.dictionary, s.types = dictionary.Attributes, dictionary.Types.Attributes
	var categories struct{ Attributes map[string]struct{ UID int } }
	if err := s.read("categories.json", &categories); err != nil {
		return nil, err
	}
	s.categories = categories.Attributes
	byName := map[string]string{}
	err := filepath.WalkDir(filepath.Join(root, "events"), func(path string, _ os.DirEntry, err error) error {
		if filepath.Ext(path) == ".json" {
			rel, _ := filepath.Rel(root, path)
			byName[strings.TrimSuffix(filepath.Base(path), ".json")] = filepath.ToSlash(rel)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	for name := range byName {
		d, err := s.load(name, func(n string) string { return byName[n] })
		if err != nil {
			return nil, fmt.Errorf("class %s: %w", name, err)
		}
		if d.UID != 0 || name == "base_event" {
			s.classes[s.categories[d.Category].UID*1000+d.UID] = d
		}
	}
	return s, nil
}

func (s *schema) object(name string) (*definition, error) {
	if d := s.objects[name]; d != nil {
		return d, nil
	}
	d, err := s.load(name, func(n string) string { return "objects/" + n + ".json" })
	if err == nil {
		s.objects[name] = d
	}
	return d, err
}

// load reads a class or an object with all that it extends and includes.
func (s *schema) load(name string, file func(string) string) (*definition, error) {
	d := &definition{}
	if err := s.read(file(name), d); err != nil {
		return nil, err
	}
	d.resolved = map[string]attribute{}
	merged := map[string]map[string]json.RawMessage{}
	if d.Extends != "" {
		parent, err := s.load(d.Extends, file)
		if err != nil {
			return nil, err
		}
		maps.Copy(d.resolved, parent.resolved)
		d.Profiles = append(d.Profiles, parent.Profiles...)
		if d.Category == "" {
			d.Category = parent.Category
		}
		if d.Constraints == nil {
			d.Constraints = parent.Constraints
		}
	}
	var includes []string
	if raw, ok := d.Attributes["$include"]; ok {
		if err := json.Unmarshal(raw, &includes); err != nil {
			var one string
			if err := json.Unmarshal(raw, &one); err != nil {
				return nil, err
			}
			includes = []string{one}
		}
	}
	for _, include := range includes {
		var p struct {
			Name       string
			Attributes map[string]map[string]json.RawMessage
		}
		if err := s.read(include, &p); err != nil {
			return nil, err
		}
		for attr, def := range p.Attributes {
			def["profile"] = json.RawMessage(strconv.Quote(p.Name))
			merged[attr] = def
		}
	}
	for attr, raw := range d.Attributes {
		if attr == "$include" {
			continue
		}
		var def map[string]json.RawMessage
		if err := json.Unmarshal(raw, &def); err != nil {
			return nil, err
		}
		if def == nil {
			continue
		}
		if _, here := def["profile"]; !here && merged[attr] == nil {
			if was, inherited := d.resolved[attr]; inherited && was.Profile != "" {
				def["profile"] = json.RawMessage(`""`) // the class has it of its own
			}
		}
		merged[attr] = def
	}
	for attr, def := range merged {
		base, known := d.resolved[attr]
		if !known {
			if base, known = s.dictionary[attr]; !known {
				return nil, fmt.Errorf("%s is not in the dictionary", attr)
			}
		}
		base.Enum = maps.Clone(base.Enum) // what is unmarshalled into a map is added to it
		text, _ := json.Marshal(def)
		if string(def["profile"]) == "null" {
			base.Profile = ""
		}
		if err := json.Unmarshal(text, &base); err != nil {
			return nil, err
		}
		d.resolved[attr] = base
	}
	return d, nil
}

// validate returns what is wrong with one event, and which recommended
// attributes of its class it does not have.
func (s *schema) validate(line []byte) (problems, recommended []string) {
	dec := json.NewDecoder(strings.NewReader(string(line)))
	dec.UseNumber()
	var event map[string]any
	if err := dec.Decode(&event); err != nil {
		return []string{err.Error()}, nil
	}
	uid, _ := whole(event["class_uid"])
	d := s.classes[int(uid)]
	if d == nil {
		return []string{fmt.Sprintf("no class %d", uid)}, nil
	}
	v := &validation{s: s, profiles: map[string]bool{}}
	if metadata, ok := event["metadata"].(map[string]any); ok {
		list, _ := metadata["profiles"].([]any)
		for _, p := range list {
			name, _ := p.(string)
			v.profiles[name] = true
			if !slices.Contains(d.Profiles, name) {
				v.say("metadata.profiles", "the class has no profile "+name)
			}
		}
	}
	v.check("", d, event)
	category, _ := whole(event["category_uid"])
	activity, _ := whole(event["activity_id"])
	typeUID, _ := whole(event["type_uid"])
	if category != int64(s.categories[d.Category].UID) {
		v.say("category_uid", fmt.Sprint("is ", category))
	}
	if typeUID != uid*100+activity {
		v.say("type_uid", fmt.Sprint("is ", typeUID))
	}
	for _, name := range slices.Sorted(maps.Keys(d.resolved)) {
		if a := d.resolved[name]; a.Requirement == "recommended" && event[name] == nil && (a.Profile == "" || v.profiles[a.Profile]) {
			recommended = append(recommended, name)
		}
	}
	return v.problems, recommended
}

type validation struct {
	s        *schema
	profiles map[string]bool
	problems []string
}

func (v *validation) say(path, text string) { v.problems = append(v.problems, path+": "+text) }

func (v *validation) check(path string, d *definition, have map[string]any) {
	if len(have) == 0 {
		v.say(path, "is an empty object")
	}
	for _, name := range slices.Sorted(maps.Keys(have)) {
		at := strings.TrimPrefix(path+"."+name, ".")
		a, known := d.resolved[name]
		switch {
		case !known:
			v.say(at, "is no attribute of "+d.Name)
			continue
		case a.Profile != "" && !v.profiles[a.Profile]:
			v.say(at, "needs the profile "+a.Profile)
		case a.Deprecated != nil:
			v.say(at, "is deprecated")
		}
		v.value(at, a, have[name])
		v.enum(at, a, have, have[name])
	}
	for _, name := range slices.Sorted(maps.Keys(d.resolved)) {
		a := d.resolved[name]
		if a.Requirement == "required" && have[name] == nil && (a.Profile == "" || v.profiles[a.Profile]) {
			v.say(path+"."+name, "is required")
		}
	}
	for constraint, names := range d.Constraints {
		n := 0
		for _, name := range names {
			if have[name] != nil {
				n++
			}
		}
		if n == 0 || constraint == "just_one" && n > 1 {
			v.say(path, fmt.Sprintf("%s of %v, has %d", constraint, names, n))
		}
	}
}

func (v *validation) value(at string, a attribute, value any) {
	if !a.IsArray {
		v.single(at, a, value)
		return
	}
	list, ok := value.([]any)
	if !ok || len(list) == 0 {
		v.say(at, "is no list, or an empty one")
	}
	for i, item := range list {
		v.single(fmt.Sprintf("%s[%d]", at, i), a, item)
	}
}

func (v *validation) single(at string, a attribute, value any) {
	t, primitive := v.s.types[a.Type]
	if !primitive {
		have, ok := value.(map[string]any)
		if !ok {
			v.say(at, "is no object")
			return
		}
		if a.Type == "object" {
			return // unmapped: anything
		}
		d, err := v.s.object(a.Type)
		if err != nil {
			v.say(at, err.Error())
			return
		}
		v.check(at, d, have)
		return
	}
	base := a.Type
	if t.Type != "" {
		base = t.Type
	}
	if base == "integer_t" || base == "long_t" {
		n, ok := whole(value)
		if !ok || len(t.Range) == 2 && (float64(n) < t.Range[0] || float64(n) > t.Range[1]) {
			v.say(at, fmt.Sprintf("is no %s: %v", a.Type, value))
		}
		return
	}
	switch base {
	case "string_t":
		s, ok := value.(string)
		if !ok || s == "" || t.MaxLen > 0 && len(s) > t.MaxLen || t.Regex != "" && !v.s.pattern(t.Regex).MatchString(s) {
			v.say(at, fmt.Sprintf("is no %s: %v", a.Type, value))
		}
	case "boolean_t":
		if _, ok := value.(bool); !ok {
			v.say(at, "is no boolean")
		}
	case "float_t":
		if _, ok := value.(json.Number); !ok {
			v.say(at, "is no number")
		}
	case "json_t":
	default:
		v.say(at, "has the unknown type "+base)
	}
}

// enum holds a value against the numbers that there are, and the name beside it
// against the caption.
func (v *validation) enum(at string, a attribute, have map[string]any, value any) {
	if len(a.Enum) == 0 || at == "class_uid" || at == "category_uid" { // those are computed, and compared above
		return
	}
	key := fmt.Sprint(value)
	e, ok := a.Enum[key]
	if !ok {
		v.say(at, key+" is no value of the enumeration")
		return
	}
	if a.Sibling == "" {
		return
	}
	sibling, given := have[a.Sibling].(string)
	switch {
	case key == "99" && (!given || sibling == e.Caption):
		v.say(at, "is 99, and "+a.Sibling+" does not say what that is")
	case key != "99" && given && sibling != e.Caption:
		v.say(at, fmt.Sprintf("is %s (%q), and %s says %q", key, e.Caption, a.Sibling, sibling))
	}
}

func whole(v any) (int64, bool) {
	n, ok := v.(json.Number)
	if !ok {
		return 0, false
	}
	i, err := n.Int64()
	return i, err == nil
}
