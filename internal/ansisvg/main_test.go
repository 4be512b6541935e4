package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"
)

func TestDraw(t *testing.T) {
	var out bytes.Buffer
	in := "\x1b[1mbold\x1b[m plain\r\n  \x1b[2;32mfaint <&>\x1b[39m still\x1b[K\nand on\n"
	if err := draw(strings.NewReader(in), &out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`x="14.0" y="28" textLength="33.6" class="bold">bold</text>`,
		`x="56.0" y="28" textLength="42.0" class="">plain</text>`,
		`class="faint green">faint &lt;&amp;&gt;</text>`,
		`class="faint">still</text>`,
		`y="66" textLength="50.4" class="faint">and on</text>`,
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %s in\n%s", want, &out)
		}
	}
	for dec := xml.NewDecoder(&out); ; {
		if _, err := dec.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("it is not XML: %v", err)
		}
	}
}
