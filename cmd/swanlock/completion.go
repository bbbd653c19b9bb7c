package main

import (
	"context"
	_ "embed"
)

var (
	//go:embed completion.bash
	bashCompletion string
	//go:embed completion.zsh
	zshCompletion string
	//go:embed completion.fish
	fishCompletion string
)

func cmdCompletion(_ context.Context, s streams, args []string) error {
	args, err := parse(newFlags("completion"), args, 1, 1)
	if err != nil {
		return err
	}
	switch args[0] {
	case "bash":
		return print(s.out, bashCompletion)
	case "zsh":
		return print(s.out, zshCompletion)
	case "fish":
		return print(s.out, fishCompletion)
	}
	return failf(exitUsage, "completion: there is none for %s, only for bash, zsh and fish", quote(args[0]))
}
