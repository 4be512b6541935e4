package api

import "ambit/alert/notify"

// MaxMuteSeconds is the longest that an alert is muted for: a year.
const MaxMuteSeconds = 366 * 24 * 60 * 60

// Mute silences an alert for a while.
type Mute struct {
	Seconds int64  `json:"seconds" minimum:"60" maximum:"31622400" doc:"for how long"`
	Why     string `json:"why,omitempty" maxLength:"500" doc:"for people"`
}

// Destinations are those who are notified of alerts.
type Destinations struct {
	Destinations []notify.Status `json:"destinations"`
}
