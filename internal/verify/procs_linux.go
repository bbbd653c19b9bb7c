package verify

import "syscall"

// dieWithParent makes the kernel kill the process when we die, even if it is
// stopped at that moment.
func dieWithParent(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGKILL }
