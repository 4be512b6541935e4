package connector

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"ambit/internal/strictyaml"
)

// The currencies of ISO 4217 that people pay with, by how many decimals they
// have. One that is not here is refused where a service counts in the smallest
// unit: a wrong guess would be off by a factor of ten or more. UGX is left out:
// what is written about how services count it disagrees.
const (
	noDecimals    = " BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF VND VUV XAF XOF XPF "
	threeDecimals = " BHD IQD JOD KWD LYD OMR TND "
	twoDecimals   = " AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF CHF CNY COP CRC CUP CVE CZK " +
		"DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD GTQ GYD HKD HNL HTG HUF IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL " +
		"MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SDG SEK SGD " +
		"SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD UYU UZS VES WST XCD YER ZAR ZMW ZWG "
)

// decimalsOf says how many decimals a currency has at the service.
func (m *money) decimalsOf(currency string) (int, bool) {
	if n, ok := m.decimals[currency]; ok {
		return n, true
	}
	word := " " + currency + " "
	switch {
	case len(currency) != 3:
	case strings.Contains(twoDecimals, word):
		return 2, true
	case strings.Contains(noDecimals, word):
		return 0, true
	case strings.Contains(threeDecimals, word):
		return 3, true
	}
	return 0, false
}

// minorUnits converts an amount exactly: 12.5 EUR is 1250.
func minorUnits(amount json.Number, decimals int) (json.Number, error) {
	s := amount.String()
	if !numberForm.MatchString(s) {
		return "", errors.New("is not an amount")
	}
	whole, fraction, _ := strings.Cut(s, ".")
	if len(fraction) > decimals {
		return "", fmt.Errorf("is %s, and the currency has %d decimals", s, decimals)
	}
	digits := strings.TrimLeft(whole+fraction+strings.Repeat("0", decimals-len(fraction)), "0")
	if digits == "" {
		digits = "0"
	}
	if len(digits) > 15 {
		return "", errors.New("is too large")
	}
	return json.Number(digits), nil
}

// convert returns the arguments as the service counts: a copy in which the
// amount is in the smallest unit. What a policy and a person see stays as it is.
func (m *money) convert(args map[string]any) (map[string]any, error) {
	if m == nil {
		return args, nil
	}
	currency := m.currency
	if name, ok := strings.CutPrefix(m.currency, "/"); ok {
		currency, _ = args[name].(string)
		if _, known := m.decimalsOf(currency); !known {
			return nil, &ArgumentError{m.currency, "is " + strictyaml.Quote(currency) + ", which is not a currency whose decimals are known here"}
		}
	}
	if !m.minor {
		return args, nil
	}
	name := m.amount[1:]
	decimals, ok := m.decimalsOf(currency)
	amount, isNumber := args[name].(json.Number)
	if !ok || !isNumber {
		return nil, &ArgumentError{m.amount, "cannot be converted into the smallest unit of its currency"}
	}
	minor, err := minorUnits(amount, decimals)
	if err != nil {
		return nil, &ArgumentError{m.amount, err.Error()}
	}
	all := make(map[string]any, len(args))
	for k, v := range args {
		all[k] = v
	}
	all[name] = minor
	return all, nil
}
