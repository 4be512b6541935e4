// Command browser is what an agent does with an account of a web site that has
// no API: it opens the page in Chromium, types what it was given, and works on.
// It does not know that what it types, and what the site hands back, are
// references. The tests build it and run it inside a computer. It prints a line
// for each step, and ends at the first that fails.
//
// It is a module of its own, so that what drives the browser is linked into
// nothing that is shipped.
//
// Trust: whoever starts it. It is a test program and is not shipped.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"time"

	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// patience is how long all of it may take. Chromium in gVisor on a busy machine
// is slow to start.
const patience = 2 * time.Minute

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: browser CHROMIUM URL URL-WITHOUT-CODES")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := use(ctx, os.Args[1], os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func use(ctx context.Context, chromium, base, plain string) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	options := append(slices.Clone(chromedp.DefaultExecAllocatorOptions[:]),
		chromedp.ExecPath(chromium), chromedp.NoSandbox, chromedp.DisableGPU, chromedp.Flag("disable-quic", true), chromedp.WSURLReadTimeout(patience))
	ctx, end := chromedp.NewExecAllocator(ctx, options...)
	defer end()
	ctx, end = chromedp.NewContext(ctx)
	defer end()
	for _, step := range []func(context.Context, string) error{logIn, cookies, logOut} {
		if err := step(ctx, base); err != nil {
			return err
		}
	}
	return script(ctx, plain)
}

// awaited has the browser wait for what a script promises.
func awaited(p *runtime.EvaluateParams) *runtime.EvaluateParams { return p.WithAwaitPromise(true) }

// logIn asks for a page, is shown the login, and types what is in the
// variables, as a person types what they know.
func logIn(ctx context.Context, base string) error {
	var first, title, at string
	err := chromedp.Run(ctx,
		chromedp.Navigate(base+"/orders"),
		chromedp.WaitVisible(`input[name=password]`, chromedp.ByQuery),
		chromedp.Title(&first),
		chromedp.SendKeys(`input[name=username]`, os.Getenv("LOGIN_USERNAME"), chromedp.ByQuery),
		chromedp.SendKeys(`input[name=password]`, os.Getenv("LOGIN_PASSWORD"), chromedp.ByQuery),
		chromedp.SendKeys(`input[name=code]`, os.Getenv("LOGIN_CODE"), chromedp.ByQuery),
		chromedp.Click(`button`, chromedp.ByQuery),
		chromedp.WaitVisible(`h1`, chromedp.ByQuery),
		chromedp.Text(`h1`, &title, chromedp.ByQuery),
		chromedp.Location(&at),
	)
	if err != nil {
		return fmt.Errorf("logging in: %w", err)
	}
	fmt.Printf("asked to %q, then at %s: %s\n", first, strings.TrimPrefix(at, base), title)
	return nil
}

// cookies prints what the browser knows of the site, and the values to standard
// error, where the test looks for what must not be there.
func cookies(ctx context.Context, base string) error {
	return chromedp.Run(ctx, chromedp.ActionFunc(func(ctx context.Context) error {
		all, err := network.GetCookies().WithURLs([]string{base}).Do(ctx)
		if err != nil {
			return fmt.Errorf("reading the cookies: %w", err)
		}
		slices.SortFunc(all, func(a, b *network.Cookie) int { return strings.Compare(a.Name, b.Name) })
		for _, c := range all {
			fmt.Printf("cookie %s path=%s secure=%v httpOnly=%v sameSite=%s ends=%v\n", c.Name, c.Path, c.Secure, c.HTTPOnly, c.SameSite, !c.Session)
			fmt.Fprintln(os.Stderr, c.Value)
		}
		return nil
	}))
}

// script logs in as pages made of scripts do, and uses the token that comes
// back.
func script(ctx context.Context, base string) error {
	var heading string
	text := fmt.Sprintf(`(async () => {
		const said = await fetch("/api/login", {method: "POST", credentials: "omit", headers: {"Content-Type": "application/json"},
			body: JSON.stringify({username: %q, password: %q})});
		const token = (await said.json()).token;
		const page = await fetch("/orders", {credentials: "omit", headers: {Authorization: "Bearer " + token}});
		return said.status + " " + page.status + " " + await page.text() + " " + token;
	})()`, os.Getenv("PLAIN_USERNAME"), os.Getenv("PLAIN_PASSWORD"))
	err := chromedp.Run(ctx, chromedp.Navigate(base+"/login"), chromedp.Evaluate(text, &heading, awaited))
	if err != nil {
		return fmt.Errorf("logging in by a script: %w", err)
	}
	said, token, _ := strings.Cut(heading, "</h1> ")
	fmt.Printf("script: %s\n", strings.ReplaceAll(said, "<h1>", ""))
	fmt.Fprintln(os.Stderr, token)
	return nil
}

// logOut ends the session, and looks whether it is over.
func logOut(ctx context.Context, base string) error {
	var status int
	var title string
	err := chromedp.Run(ctx,
		chromedp.Evaluate(`fetch("/logout", {method: "POST"}).then(r => r.status)`, &status, awaited),
		chromedp.Navigate(base+"/orders"),
		chromedp.WaitVisible(`input[name=password]`, chromedp.ByQuery),
		chromedp.Title(&title),
	)
	if err != nil {
		return fmt.Errorf("logging out: %w", err)
	}
	fmt.Printf("logged out: %q\n", title)
	return cookies(ctx, base)
}
