package connector

// Reference says what stands for a Secret in the agent's computer.
type Reference struct {
	Secret string // name of the Secret
	// Shape is what the reference looks like, as ambit/internal/reference reads
	// it, so that the checks of SDKs accept it.
	Shape string
}
