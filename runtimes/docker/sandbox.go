package docker

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// sandboxProgram returns the program that holds a pod's namespaces, as a static ELF file of some two hundred
// bytes. There can be hundreds of it on a node, so it is the smallest there can be: it blocks all signals and
// waits for them; SIGTERM and SIGINT end it, and SIGCHLD makes it reap, because in a pod that shares its
// process namespace it is the parent of all orphans.
func sandboxProgram(arch string) ([]byte, error) {
	switch arch {
	case "amd64":
		return elf(62, amd64Code), nil
	case "arm64":
		return elf(183, arm64Code()), nil
	}
	return nil, fmt.Errorf("there is no sandbox program for engines on %s: use amd64 or arm64", arch)
}

// amd64Code is machine code; every line has the assembly beside it.
var amd64Code = []byte{
	0x6a, 0xff, // push -1: the mask of all signals, on the stack
	0x31, 0xff, // xor edi, edi: SIG_BLOCK
	0x48, 0x89, 0xe6, // mov rsi, rsp
	0x31, 0xd2, // xor edx, edx
	0x6a, 0x08, 0x41, 0x5a, // push 8; pop r10: size of the mask
	0x6a, 0x0e, 0x58, // push 14; pop rax: rt_sigprocmask
	0x0f, 0x05, // syscall
	// loop (18):
	0x48, 0x89, 0xe7, // mov rdi, rsp
	0x31, 0xf6, // xor esi, esi
	0x31, 0xd2, // xor edx, edx
	0x6a, 0x08, 0x41, 0x5a, // push 8; pop r10
	0xb8, 0x80, 0x00, 0x00, 0x00, // mov eax, 128: rt_sigtimedwait
	0x0f, 0x05, // syscall
	0x83, 0xf8, 0x0f, // cmp eax, 15: SIGTERM
	0x74, 0x20, // je exit
	0x83, 0xf8, 0x02, // cmp eax, 2: SIGINT
	0x74, 0x1b, // je exit
	0x83, 0xf8, 0x11, // cmp eax, 17: SIGCHLD
	0x75, 0xdf, // jne loop
	// reap (51):
	0x6a, 0xff, 0x5f, // push -1; pop rdi: any child
	0x31, 0xf6, // xor esi, esi
	0x6a, 0x01, 0x5a, // push 1; pop rdx: WNOHANG
	0x45, 0x31, 0xd2, // xor r10d, r10d
	0x6a, 0x3d, 0x58, // push 61; pop rax: wait4
	0x0f, 0x05, // syscall
	0x85, 0xc0, // test eax, eax
	0x7f, 0xec, // jg reap
	0xeb, 0xc9, // jmp loop
	// exit (73):
	0x31, 0xff, // xor edi, edi
	0x6a, 0x3c, 0x58, // push 60; pop rax: exit
	0x0f, 0x05, // syscall
}

// arm64Code is the same for arm64.
func arm64Code() []byte {
	var b bytes.Buffer
	for _, instruction := range []uint32{
		0x92800009, // mov x9, #-1
		0xd10043ff, // sub sp, sp, #16
		0xf90003e9, // str x9, [sp]
		0xd2800000, // mov x0, #0: SIG_BLOCK
		0x910003e1, // mov x1, sp
		0xd2800002, // mov x2, #0
		0xd2800103, // mov x3, #8
		0xd28010e8, // mov x8, #135: rt_sigprocmask
		0xd4000001, // svc #0
		// loop (9):
		0x910003e0, // mov x0, sp
		0xd2800001, // mov x1, #0
		0xd2800002, // mov x2, #0
		0xd2800103, // mov x3, #8
		0xd2801128, // mov x8, #137: rt_sigtimedwait
		0xd4000001, // svc #0
		0x71003c1f, // cmp w0, #15: SIGTERM
		0x540001c0, // b.eq exit (+14)
		0x7100081f, // cmp w0, #2: SIGINT
		0x54000180, // b.eq exit (+12)
		0x7100441f, // cmp w0, #17: SIGCHLD
		0x54fffea1, // b.ne loop (-11)
		// reap (21):
		0x92800000, // mov x0, #-1: any child
		0xd2800001, // mov x1, #0
		0xd2800022, // mov x2, #1: WNOHANG
		0xd2800003, // mov x3, #0
		0xd2802088, // mov x8, #260: wait4
		0xd4000001, // svc #0
		0x7100001f, // cmp w0, #0
		0x54ffff2c, // b.gt reap (-7)
		0x17ffffec, // b loop (-20)
		// exit (30):
		0xd2800000, // mov x0, #0
		0xd2800ba8, // mov x8, #93: exit
		0xd4000001, // svc #0
	} {
		_ = binary.Write(&b, binary.LittleEndian, instruction) // a buffer takes everything
	}
	return b.Bytes()
}

// elf wraps code for a machine into a file with one segment that holds everything.
func elf(machine uint16, code []byte) []byte {
	const base, header = 0x400000, 64 + 56
	size := uint64(header + len(code))
	var b bytes.Buffer
	b.Write([]byte{0x7f, 'E', 'L', 'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	for _, v := range []any{
		uint16(2), machine, uint32(1), // executable, version
		uint64(base + header), uint64(64), uint64(0), // entry, program headers, no sections
		uint32(0), uint16(64), uint16(56), uint16(1), uint16(0), uint16(0), uint16(0),
		// The segment: read and execute.
		uint32(1), uint32(5), uint64(0), uint64(base), uint64(base), size, size, uint64(0x10000),
	} {
		_ = binary.Write(&b, binary.LittleEndian, v)
	}
	b.Write(code)
	return b.Bytes()
}
