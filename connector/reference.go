package connector

import "ambit/internal/reference"

// Reference says what stands for a Secret in the agent's computer.
type Reference struct {
	Secret string // name of the Secret
	// Shape is what the reference looks like, so that the checks of SDKs accept
	// it.
	Shape reference.Shape
}
