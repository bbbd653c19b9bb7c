// Command build builds Consul from the module that it is run in, unless that is
// done already, and prints where the program is: in the folder swanlock of
// os.UserCacheDir, where the tests of backends/consullock look for it.
//
//	cd tools/consul && go run ./build
//
// 1.14.11 is the last version that was tried whose licence is the MPL alone: those
// of 1.15.10, 1.16.6 and 1.17.0 have the text of the Business Source License. So
// the version is not to be raised without a look at the file LICENSE of its module.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

const program = "consul-1.14.11"

func main() {
	if err := build(); err != nil {
		fmt.Fprintln(os.Stderr, "tools/consul/build:", err)
		os.Exit(1)
	}
}

func build() error {
	cache, err := os.UserCacheDir()
	if err != nil {
		return err
	}
	path := filepath.Join(cache, "swanlock", program)
	if _, err := os.Stat(path); err == nil {
		fmt.Println(path)
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	// A build that is cut short must not leave what looks like the program.
	part := fmt.Sprintf("%s.%d", path, os.Getpid())
	defer os.Remove(part)
	cmd := exec.Command("go", "build", "-o", part, ".")
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("go build: %w", err)
	}
	if err := os.Rename(part, path); err != nil {
		return err
	}
	fmt.Println(path)
	return nil
}
