package exit_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/promptmill/promptmill/deploy/exit"
)

func ExampleWithDefaultHint() {
	err := exit.Unreachable(errors.New("no bus answers at 10.0.0.7:4333"), "start promptmill serve there")
	err = fmt.Errorf("submit: %w", err)
	err = exit.WithDefaultHint(err, "run the same command again")

	fmt.Println("error:", err)
	fmt.Println("hint:", exit.Hint(err))
	fmt.Println("code:", exit.Code(err))
	// Output:
	// error: submit: no bus answers at 10.0.0.7:4333
	// hint: start promptmill serve there
	// code: 4
}

// The outermost error decides on the code and the hint, and a hint keeps the code below it.
func TestError(t *testing.T) {
	t.Parallel()

	cause := errors.New("cause")
	for name, tt := range map[string]struct {
		err      error
		code     int
		hint     string
		is       bool
		reported bool
	}{
		"nil":           {nil, exit.CodeOK, "", false, false},
		"a hint of nil": {exit.WithHint(nil, "fix it"), exit.CodeOK, "", false, false},
		"another":       {cause, exit.CodeError, "", false, false},
		"usage":         {exit.Usage("try", "%w", cause), exit.CodeUsage, "try", true, false},
		"unreachable":   {exit.Unreachable(cause, "try"), exit.CodeUnreachable, "try", true, false},
		"interrupted":   {exit.Interrupted(cause, "try"), exit.CodeInterrupted, "try", true, false},
		"requests":      {exit.RequestsFailed(cause, "try"), exit.CodeFailed, "try", true, false},
		"reported":      {exit.Reported(exit.CodeFailed), exit.CodeFailed, "", true, true},
		"a hint":        {exit.WithHint(cause, "try"), exit.CodeError, "try", true, false},
		"another hint":  {exit.WithHint(exit.Unreachable(cause, "a"), "b"), exit.CodeUnreachable, "b", true, false},
		"a command": {exit.WithCommand(exit.Unreachable(cause, "a"), "try: ", "do it"), exit.CodeUnreachable,
			"try: do it", true, false},
		"a command of nil": {exit.WithCommand(nil, "try: ", "do it"), exit.CodeOK, "", false, false},
		"a default": {exit.WithDefaultHint(exit.Unreachable(cause, ""), "b"), exit.CodeUnreachable,
			"b", true, false},
		"not a default": {exit.WithDefaultHint(exit.Unreachable(cause, "a"), "b"), exit.CodeUnreachable,
			"a", true, false},
		"wrapped": {fmt.Errorf("do: %w", exit.Unreachable(cause, "a")), exit.CodeUnreachable, "a", true, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			if got := exit.Code(tt.err); got != tt.code {
				t.Errorf("code %d, want %d", got, tt.code)
			}

			if got := exit.Hint(tt.err); got != tt.hint {
				t.Errorf("hint %q, want %q", got, tt.hint)
			}

			if got := exit.IsError(tt.err); got != tt.is {
				t.Errorf("is an Error: %t, want %t", got, tt.is)
			}

			if got := exit.IsReported(tt.err); got != tt.reported {
				t.Errorf("is reported: %t, want %t", got, tt.reported)
			}

			if tt.err != nil && !tt.reported && !errors.Is(tt.err, cause) {
				t.Errorf("%v does not wrap its cause", tt.err)
			}
		})
	}
}

func TestCommand(t *testing.T) {
	t.Parallel()

	err := exit.WithCommand(errors.New("cause"), "try: ", "do it")
	for name, tt := range map[string]struct {
		err  error
		want string
	}{
		"a command": {err, "do it"},
		"wrapped":   {fmt.Errorf("do: %w", err), "do it"},
		"a hint":    {exit.WithHint(err, "try"), ""},
		"none":      {errors.New("cause"), ""},
	} {
		if got := exit.Command(tt.err); got != tt.want {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}

// A hint keeps the limit of an error.
func TestLimit(t *testing.T) {
	t.Parallel()

	err := exit.LimitReached("failed>1%", errors.New("stopped"), "")
	wrapped := exit.WithCommand(fmt.Errorf("run r: %w", err), "", "fix")
	for _, err := range []error{err, exit.WithHint(err, "fix it"), wrapped} {
		if exit.Limit(err) != "failed>1%" || exit.Code(err) != exit.CodeLimit {
			t.Errorf("the limit is %q, the code %d", exit.Limit(err), exit.Code(err))
		}
	}

	if got := exit.Limit(exit.Usage("", "wrong")); got != "" {
		t.Errorf("another error has the limit %q", got)
	}
}
