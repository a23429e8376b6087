package worker

import "golang.org/x/sys/unix"

const auditArch = unix.AUDIT_ARCH_AARCH64

// forbiddenHere are older forms of calls that only this architecture has.
var forbiddenHere = []uint32{unix.SYS_RENAMEAT}
