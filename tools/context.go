package tools

import (
	"context"

	"ambit"
)

type callKey struct{}

type granted struct {
	call  *ambit.ToolCall
	event uint64
}

// CallOf returns the call that ctx runs and its position in the log. What a Runner
// dials through can say so which call it dials for, with its intent and task.
func CallOf(ctx context.Context) (call *ambit.ToolCall, event uint64, ok bool) {
	g, ok := ctx.Value(callKey{}).(granted)
	return g.call, g.event, ok
}

func withCall(ctx context.Context, call *ambit.ToolCall, event uint64) context.Context {
	return context.WithValue(ctx, callKey{}, granted{call, event})
}
