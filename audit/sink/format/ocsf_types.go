package format

import (
	"ambit"
)

// The objects of OCSF 1.8 that events are mapped to, with the attributes that
// have something to say. The names are the schema's.

type ocsfEvent struct {
	ClassUID     int    `json:"class_uid"`
	ClassName    string `json:"class_name"`
	CategoryUID  int    `json:"category_uid"`
	CategoryName string `json:"category_name"`
	ActivityID   int    `json:"activity_id"`
	ActivityName string `json:"activity_name"`
	TypeUID      int64  `json:"type_uid"`
	TypeName     string `json:"type_name"`
	Time         int64  `json:"time"`            // milliseconds
	Offset       int    `json:"timezone_offset"` // always UTC
	SeverityID   int    `json:"severity_id"`
	Severity     string `json:"severity"`
	StatusID     int    `json:"status_id"`
	Status       string `json:"status"`
	StatusCode   string `json:"status_code,omitempty"`
	StatusDetail string `json:"status_detail,omitempty"`
	Message      string `json:"message"`
	Duration     *int64 `json:"duration,omitempty"` // milliseconds

	Metadata ocsfMetadata `json:"metadata"`
	Actor    *ocsfActor   `json:"actor,omitempty"`

	// Of the profile security_control.
	ActionID      *int          `json:"action_id,omitempty"`
	Action        string        `json:"action,omitempty"`
	DispositionID *int          `json:"disposition_id,omitempty"`
	Disposition   string        `json:"disposition,omitempty"`
	FirewallRule  *ocsfEntity   `json:"firewall_rule,omitempty"`
	Policy        *ocsfEntity   `json:"policy,omitempty"`
	IsAlert       *bool         `json:"is_alert,omitempty"`
	SrcEndpoint   *ocsfEndpoint `json:"src_endpoint,omitempty"`
	DstEndpoint   *ocsfEndpoint `json:"dst_endpoint,omitempty"`
	Device        *ocsfEndpoint `json:"device,omitempty"`

	HTTPRequest  *ocsfHTTPRequest  `json:"http_request,omitempty"`
	HTTPResponse *ocsfHTTPResponse `json:"http_response,omitempty"`
	URL          *ocsfURL          `json:"url,omitempty"`
	Traffic      *ocsfTraffic      `json:"traffic,omitempty"`
	Query        *ocsfQuery        `json:"query,omitempty"`

	API         *ocsfAPI         `json:"api,omitempty"`
	App         *ocsfProduct     `json:"app,omitempty"`
	Databucket  *ocsfTyped       `json:"databucket,omitempty"`
	Entity      *ocsfTyped       `json:"entity,omitempty"`
	FindingInfo *ocsfFindingInfo `json:"finding_info,omitempty"`
	LogName     string           `json:"log_name,omitempty"`
	LogTypeID   *int             `json:"log_type_id,omitempty"`
	LogType     string           `json:"log_type,omitempty"`
	Process     *ocsfProcess     `json:"process,omitempty"`
	ExitCode    *int             `json:"exit_code,omitempty"`
	Resources   []ocsfEntity     `json:"resources,omitempty"`
	Service     *ocsfEntity      `json:"service,omitempty"`
	User        *ocsfUser        `json:"user,omitempty"`

	Unmapped *ocsfUnmapped `json:"unmapped,omitempty"`
}

type ocsfMetadata struct {
	Version        string      `json:"version"`
	Product        ocsfProduct `json:"product"`
	Profiles       []string    `json:"profiles,omitempty"`
	UID            string      `json:"uid"`
	Sequence       uint64      `json:"sequence"`
	LogName        string      `json:"log_name"`
	LogProvider    string      `json:"log_provider"`
	EventCode      string      `json:"event_code"`
	OriginalTime   string      `json:"original_time"` // with microseconds
	CorrelationUID string      `json:"correlation_uid,omitempty"`
}

type ocsfProduct struct {
	Name       string `json:"name"`
	UID        string `json:"uid,omitempty"`
	VendorName string `json:"vendor_name"`
	Version    string `json:"version,omitempty"`
}

// ocsfEntity is any object that a name or a uid is enough for.
type ocsfEntity struct {
	Name string `json:"name,omitempty"`
	UID  string `json:"uid,omitempty"`
}

// ocsfTyped is one of a type of our own: type_id 99 with its name, or one of OCSF's.
type ocsfTyped struct {
	Name   string      `json:"name,omitempty"`
	UID    string      `json:"uid,omitempty"`
	TypeID int         `json:"type_id"`
	Type   string      `json:"type"`
	Policy *ocsfEntity `json:"policy,omitempty"`
}

type ocsfUser struct {
	Name   string `json:"name"`
	UID    string `json:"uid,omitempty"`
	TypeID int    `json:"type_id"`
	Type   string `json:"type"`
}

type ocsfActor struct {
	User *ocsfUser `json:"user"`
}

type ocsfEndpoint struct {
	Name     string `json:"name,omitempty"`
	UID      string `json:"uid,omitempty"`
	Hostname string `json:"hostname,omitempty"`
	IP       string `json:"ip,omitempty"`
	Port     int    `json:"port,omitempty"`
	TypeID   *int   `json:"type_id,omitempty"`
	Type     string `json:"type,omitempty"`
}

type ocsfURL struct {
	URLString   string `json:"url_string"`
	Scheme      string `json:"scheme,omitempty"`
	Hostname    string `json:"hostname,omitempty"`
	Port        int    `json:"port,omitempty"`
	Path        string `json:"path,omitempty"`
	QueryString string `json:"query_string,omitempty"`
}

type ocsfHTTPRequest struct {
	HTTPMethod string   `json:"http_method,omitempty"`
	URL        *ocsfURL `json:"url,omitempty"`
}

type ocsfHTTPResponse struct {
	Code       int   `json:"code"`
	BodyLength int64 `json:"body_length"`
}

type ocsfTraffic struct {
	Bytes    int64 `json:"bytes"`
	BytesIn  int64 `json:"bytes_in"`
	BytesOut int64 `json:"bytes_out"`
}

type ocsfQuery struct {
	Hostname string `json:"hostname"`
}

type ocsfAPI struct {
	Operation string        `json:"operation"`
	Service   *ocsfEntity   `json:"service,omitempty"`
	Request   *ocsfEntity   `json:"request,omitempty"`
	Response  *ocsfResponse `json:"response,omitempty"`
}

type ocsfResponse struct {
	Code int `json:"code"`
}

type ocsfProcess struct {
	UID     string `json:"uid"`
	CmdLine string `json:"cmd_line,omitempty"`
}

type ocsfFindingInfo struct {
	UID           string        `json:"uid"`
	Title         string        `json:"title"`
	Desc          string        `json:"desc,omitempty"`
	Types         []string      `json:"types,omitempty"`
	CreatedTime   int64         `json:"created_time"`
	RelatedEvents []ocsfRelated `json:"related_events,omitempty"`
}

type ocsfRelated struct {
	UID  string `json:"uid"`
	Type string `json:"type,omitempty"`
}

// ocsfUnmapped is what OCSF has no place for, in the words of the log.
type ocsfUnmapped struct {
	V          int                `json:"v,omitempty"`
	Agent      ambit.AgentID      `json:"agent,omitempty"`
	Decision   ambit.Decision     `json:"decision"`
	Of         *uint64            `json:"of,omitempty"`
	Task       string             `json:"task,omitempty"`
	Action     ambit.Action       `json:"action,omitempty"`
	Tool       string             `json:"tool,omitempty"`
	Resource   string             `json:"resource,omitempty"`
	Method     string             `json:"method,omitempty"`
	Host       string             `json:"host,omitempty"`
	URL        string             `json:"url,omitempty"`
	Intent     string             `json:"intent,omitempty"`
	Rule       string             `json:"rule,omitempty"`
	Reason     *ambit.Reason      `json:"reason,omitempty"`
	Effects    []ambit.Effect     `json:"effects,omitempty"`
	Provenance []ambit.Provenance `json:"provenance,omitempty"`
	Subjects   []string           `json:"subjects,omitempty"`
	More       int                `json:"more,omitempty"`
	Unseen     bool               `json:"unseen,omitempty"`
	Status     int                `json:"status,omitempty"`
	BytesOut   int64              `json:"bytesOut,omitempty"`
	BytesIn    int64              `json:"bytesIn,omitempty"`
	Duration   int64              `json:"duration,omitempty"`
	Connection string             `json:"connection,omitempty"`
	Links      []ambit.Link       `json:"links,omitempty"`
	Erasure    *ambit.Erasure     `json:"erasure,omitempty"`
	Detail     string             `json:"detail,omitempty"`
}
