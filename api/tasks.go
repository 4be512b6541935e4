package api

// BeginTask is what a person wants of an agent, in their words.
type BeginTask struct {
	Words string `json:"words" minLength:"1" maxLength:"65536" doc:"what you want; the names, addresses, accounts and numbers in it are what its tools may use without asking"`
}

// Task is a piece of work that has begun.
type Task struct {
	Task  string `json:"task" doc:"its name, as events have it"`
	Event uint64 `json:"event" doc:"position of the words in the agent's log"`
}
