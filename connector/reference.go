package connector

// Reference says what stands for a Secret in the agent's computer.
type Reference struct {
	Secret string // name of the Secret
	// Shape is what the reference looks like, so that the checks of SDKs accept
	// it. It is in the language of ambit/internal/reference.
	Shape string
}
