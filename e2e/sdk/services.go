package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/anthropics/anthropic-sdk-go"
	"github.com/anthropics/anthropic-sdk-go/option"
	"github.com/google/go-github/v84/github"
	"github.com/slack-go/slack"
	"github.com/stripe/stripe-go/v85"
)

// useGitHub reads a repository, opens an issue in it and attaches a file to a
// release, which has a host of its own.
func useGitHub(ctx context.Context, a account) error {
	c := github.NewClient(nil).WithAuthToken(os.Getenv("GITHUB_TOKEN"))
	if !a.own() {
		api, err := c.BaseURL.Parse(a.base("api.github.com") + "/")
		if err != nil {
			return err
		}
		uploads, err := c.UploadURL.Parse(a.base("uploads.github.com") + "/")
		if err != nil {
			return err
		}
		c.BaseURL, c.UploadURL = api, uploads
	}
	repo, _, err := c.Repositories.Get(ctx, "acme", "shop")
	if err != nil {
		return fmt.Errorf("reading the repository: %w", err)
	}
	fmt.Println("repository", repo.GetFullName())
	issue, _, err := c.Issues.Create(ctx, "acme", "shop", &github.IssueRequest{Title: github.Ptr("broken \"checkout\""), Labels: &[]string{"bug"}})
	if err != nil {
		return fmt.Errorf("opening an issue: %w", err)
	}
	fmt.Println("issue", issue.GetNumber(), issue.GetTitle())
	path := filepath.Join(os.TempDir(), "notes.txt")
	if err := os.WriteFile(path, []byte("what is new\n"), 0o600); err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	asset, _, err := c.Repositories.UploadReleaseAsset(ctx, "acme", "shop", 7, &github.UploadOptions{Name: "notes.txt"}, f)
	if err != nil {
		return fmt.Errorf("uploading an asset: %w", err)
	}
	fmt.Println("asset", asset.GetName(), asset.GetSize())
	return nil
}

// useStripe makes a customer, finds it in a list of two pages, and asks for one
// that is not there, which Stripe answers with an error of its own.
func useStripe(ctx context.Context, a account) error {
	var options []stripe.ClientOption
	if !a.own() {
		options = append(options, stripe.WithBackends(stripe.NewBackendsWithConfig(&stripe.BackendConfig{URL: stripe.String(a.base("api.stripe.com"))})))
	}
	c := stripe.NewClient(os.Getenv("STRIPE_API_KEY"), options...)
	made, err := c.V1Customers.Create(ctx, &stripe.CustomerCreateParams{Email: stripe.String("ann@customer.example"), Metadata: map[string]string{"order": "42&43"}})
	if err != nil {
		return fmt.Errorf("making a customer: %w", err)
	}
	fmt.Println("customer", made.ID, made.Email, made.Metadata["order"])
	list := &stripe.CustomerListParams{}
	list.Limit = stripe.Int64(1)
	for customer, err := range c.V1Customers.List(ctx, list).All(ctx) {
		if err != nil {
			return fmt.Errorf("listing customers: %w", err)
		}
		fmt.Println("listed", customer.ID)
	}
	_, err = c.V1Customers.Retrieve(ctx, "cus_gone", nil)
	refused, ok := err.(*stripe.Error)
	if !ok {
		return fmt.Errorf("a customer that is not there: %w", err)
	}
	fmt.Println("refused", refused.HTTPStatusCode, refused.Code)
	return nil
}

// useSlack posts a message and reads the channel. slack-go sends the token as a
// field of the form in some methods, and as a header field in others.
func useSlack(ctx context.Context, a account) error {
	var options []slack.Option
	if !a.own() {
		options = append(options, slack.OptionAPIURL(a.base("slack.com")+"/api/"))
	}
	c := slack.New(os.Getenv("SLACK_BOT_TOKEN"), options...)
	who, err := c.AuthTestContext(ctx)
	if err != nil {
		return fmt.Errorf("asking who this is: %w", err)
	}
	fmt.Println("bot", who.User, who.Team)
	channel, at, err := c.PostMessageContext(ctx, "C0123456789", slack.MsgOptionText("done & dusted: 100 %", false))
	if err != nil {
		return fmt.Errorf("posting a message: %w", err)
	}
	fmt.Println("posted", channel, at)
	history, err := c.GetConversationHistoryContext(ctx, &slack.GetConversationHistoryParameters{ChannelID: "C0123456789", Limit: 10})
	if err != nil {
		return fmt.Errorf("reading the channel: %w", err)
	}
	for _, m := range history.Messages {
		fmt.Println("message", m.Text)
	}
	return nil
}

// useAnthropic asks a model, once for a whole answer and once for a stream. The
// SDK finds its key by itself.
func useAnthropic(ctx context.Context, a account) error {
	options := []option.RequestOption{option.WithMaxRetries(0)}
	if !a.own() {
		options = append(options, option.WithBaseURL(a.base("api.anthropic.com")+"/"))
	}
	c := anthropic.NewClient(options...)
	question := anthropic.MessageNewParams{
		Model: "claude-stand-in", MaxTokens: 64,
		Messages: []anthropic.MessageParam{anthropic.NewUserMessage(anthropic.NewTextBlock("how are you?"))},
	}
	answer, err := c.Messages.New(ctx, question)
	if err != nil {
		return fmt.Errorf("asking: %w", err)
	}
	for _, block := range answer.Content {
		fmt.Println("answer", block.Text)
	}
	var text strings.Builder
	stream := c.Messages.NewStreaming(ctx, question)
	for stream.Next() {
		if delta, ok := stream.Current().AsAny().(anthropic.ContentBlockDeltaEvent); ok {
			text.WriteString(delta.Delta.Text)
		}
	}
	if err := stream.Err(); err != nil {
		return fmt.Errorf("asking for a stream: %w", err)
	}
	fmt.Println("streamed", text.String())
	return nil
}
