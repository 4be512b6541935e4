package approval_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"ambit"
	"ambit/approval"
)

// TestKilled kills another process right after each step has returned: what it
// returned is durable, and what it did not is not there.
func TestKilled(t *testing.T) {
	if path := os.Getenv("APPROVAL_KILLED"); path != "" {
		steps, _ := strconv.Atoi(os.Getenv("APPROVAL_STEPS"))
		fmt.Println(liveFor(t, path, steps))
		time.Sleep(time.Hour) // until it is killed
	}
	for steps, want := range []approval.State{approval.Waiting, approval.Approved, approval.Lost, approval.Done} {
		t.Run(string(want), func(t *testing.T) {
			w := newWorld(t, nil)
			w.close()
			killAfter(t, w.path, steps+1)
			w.open()
			q, err := w.Get(t.Context(), "support-1")
			if err != nil || q.State != want {
				t.Fatalf("%+v, %v", q, err)
			}
			_, err = w.Take(t.Context(), q.ID, q.Digest)
			if (err == nil) != (want == approval.Approved) {
				t.Errorf("taking it after that: %v", err)
			}
			if r, err := w.log.Verify(t.Context()); err != nil || !r.OK {
				t.Errorf("the log: %+v, %v", r, err)
			}
			if n := len(w.events(ambit.KindApprovalAnswer)); n != min(steps, 1) {
				t.Errorf("%d answers in the log", n)
			}
		})
	}
}

// killAfter runs this test as another process and kills it when it has done so many steps.
func killAfter(t *testing.T, path string, steps int) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestKilled$")
	cmd.Env = append(os.Environ(), "APPROVAL_KILLED="+path, "APPROVAL_STEPS="+strconv.Itoa(steps))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || line != "<nil>\n" {
		t.Errorf("it went wrong before: %q, %v", line, err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = cmd.Wait()
}

// liveFor does so many steps, one after the other, and leaves everything open.
func liveFor(t *testing.T, path string, n int) error {
	w := &world{t: t, path: path, clock: &clock{now: newClock()}, alerts: &alerts{}}
	w.open()
	ctx := context.Background()
	q := w.ask(refund(1))
	steps := []func() error{
		func() error { return nil },
		func() error { _, err := w.say(q, "uid:1000", true); return err },
		func() error { _, err := w.Take(ctx, q.ID, q.Digest); return err },
		func() error { return w.Finish(ctx, q.ID, []byte("x"), "") },
	}
	for _, step := range steps[:n] {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}
