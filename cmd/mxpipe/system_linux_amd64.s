//go:build !portable

#include "textflag.h"

// func syscall5(number, a1, a2, a3, a4, a5 uintptr) (result int)
TEXT ·syscall5(SB), NOSPLIT, $0-56
	MOVQ number+0(FP), AX
	MOVQ a1+8(FP), DI
	MOVQ a2+16(FP), SI
	MOVQ a3+24(FP), DX
	MOVQ a4+32(FP), R10
	MOVQ a5+40(FP), R8
	SYSCALL
	MOVQ AX, result+48(FP)
	RET
