# See trampoline_x86_64.rs.
.pushsection .tbss.gp1_function_thread,"awT",@nobits
.globl gp1_function_thread
.hidden gp1_function_thread
.p2align 4
.type gp1_function_thread,@object
gp1_function_thread:
    .zero 16
.size gp1_function_thread, 16
.popsection

# A trampoline's frame, from its stack pointer:
#   0 xmm0 to xmm7   128 integer registers   192 pair of the section   200 operation that is called
#   208 the FunctionCall: frame, id, depth   224 error number
.set GP1_PAIR, 192
.set GP1_OP, 200
.set GP1_CALL, 208
.set GP1_ERRNO, 224

# Calls each operation that wants this. \base holds the frame's address and is kept by what is called.
.macro GP1_OPS base, function
    .if {early}
    mov rcx, qword ptr [\base + GP1_OP]
    .else
    mov rcx, qword ptr [rip + {ops}]
    .endif
    mov rdx, qword ptr [rcx + {op_words}]
    test rdx, rdx
    jz 43f
41: mov esi, dword ptr [\base + GP1_CALL + 8]
    mov edi, esi
    shr edi, 6
    cmp rdi, qword ptr [rcx + {op_len}]
    jae 42f
    mov rdx, qword ptr [rdx + rdi * 8]
    mov rax, qword ptr [rcx + \function]
    bt rdx, rsi
    jnc 42f
    test rax, rax
    jz 42f
    mov qword ptr [\base + GP1_OP], rcx
    mov rdi, qword ptr [rcx + {op_data}]
    lea rsi, [\base + GP1_CALL]
    call rax
    mov rcx, qword ptr [\base + GP1_OP]
42: add rcx, {op_size}
    mov rdx, qword ptr [rcx + {op_words}]
    test rdx, rdx
    jnz 41b
43:
.endm

# On entry: [rsp + \id] is the pushed number, [rsp + \at] the return address of the traced function's caller, and
# \room more bytes make the stack aligned. \function says what is called of an operation. \is_return: the function has
# returned, and only results are to be kept; \calls goes by all operations as a function.
.macro GP1_TRAMPOLINE name, id, at, room, function, cfa_rip, is_return, calls
.globl \name
.hidden \name
.type \name,@function
.p2align 6
\name:
    .cfi_startproc
    .cfi_def_cfa rsp, 16
    .cfi_offset rip, \cfa_rip
    mov r11, qword ptr [rip + gp1_function_thread@GOTTPOFF]
    cmp qword ptr fs:[r11], 0
    jne 13f
12: mov qword ptr fs:[r11], rsp
    sub rsp, \room
    .cfi_adjust_cfa_offset \room
    mov qword ptr [rsp + 128], rax
    mov qword ptr [rsp + 136], rdx
    mov qword ptr [rsp + 144], rcx
    movups xmmword ptr [rsp], xmm0
    movups xmmword ptr [rsp + 16], xmm1
    movups xmmword ptr [rsp + 32], xmm2
    movups xmmword ptr [rsp + 48], xmm3
    .if \is_return == 0
    mov qword ptr [rsp + 152], rdi
    mov qword ptr [rsp + 160], rsi
    mov qword ptr [rsp + 168], r8
    mov qword ptr [rsp + 176], r9
    mov qword ptr [rsp + 184], r10
    movups xmmword ptr [rsp + 64], xmm4
    movups xmmword ptr [rsp + 80], xmm5
    movups xmmword ptr [rsp + 96], xmm6
    movups xmmword ptr [rsp + 112], xmm7
    .endif
    mov r11, qword ptr [rip + {errno}]
    mov r11d, dword ptr fs:[r11]
    mov dword ptr [rsp + GP1_ERRNO], r11d
    mov eax, dword ptr [rsp + \room + \id]
    shr eax, 8
    mov dword ptr [rsp + GP1_CALL + 8], eax
    mov dword ptr [rsp + GP1_CALL + 12], {no_depth}
    lea rcx, [rsp + \room + \at]
    mov qword ptr [rsp + GP1_CALL], rcx
    .if {early}
    mov rcx, qword ptr [rip + {ops}]
    mov qword ptr [rsp + GP1_OP], rcx
    .endif
    mov rax, qword ptr [rip + gp1_rcu_thread@GOTTPOFF]
    mov rax, qword ptr fs:[rax + {slot_word}]
    mov rcx, qword ptr [rip + {trace} + {fast}]
    test rax, rcx
    jz 15f
    add rax, rcx
    add rax, qword ptr [rcx + {rank}]
    inc qword ptr [rax]
14: mov qword ptr [rsp + GP1_PAIR], rax
    mov rcx, qword ptr [rip + {ops}]
    cmp byte ptr [rcx + {op_apart}], 0
    jne 20f
19: GP1_OPS rsp, \function
18: mov rax, qword ptr [rsp + GP1_PAIR]
    test al, {how}
    jnz 16f
    inc qword ptr [rax + {unlock}]
17: mov eax, dword ptr [rsp + GP1_ERRNO]
    mov r11, qword ptr [rip + {errno}]
    mov dword ptr fs:[r11], eax
    mov r11, qword ptr [rip + gp1_function_thread@GOTTPOFF]
    mov qword ptr fs:[r11], 0
    movups xmm0, xmmword ptr [rsp]
    movups xmm1, xmmword ptr [rsp + 16]
    movups xmm2, xmmword ptr [rsp + 32]
    movups xmm3, xmmword ptr [rsp + 48]
    mov rax, qword ptr [rsp + 128]
    mov rdx, qword ptr [rsp + 136]
    mov rcx, qword ptr [rsp + 144]
    .if \is_return == 0
    movups xmm4, xmmword ptr [rsp + 64]
    movups xmm5, xmmword ptr [rsp + 80]
    movups xmm6, xmmword ptr [rsp + 96]
    movups xmm7, xmmword ptr [rsp + 112]
    mov rdi, qword ptr [rsp + 152]
    mov rsi, qword ptr [rsp + 160]
    mov r8, qword ptr [rsp + 168]
    mov r9, qword ptr [rsp + 176]
    mov r10, qword ptr [rsp + 184]
    .endif
    .if \id == 0
    add rsp, \room + 8
    .cfi_adjust_cfa_offset -\room - 8
    ret
    .cfi_adjust_cfa_offset \room + 8
    .else
    add rsp, \room
    .cfi_adjust_cfa_offset -\room
    ret 8
    .cfi_adjust_cfa_offset \room
    .endif

    # An operation may use wide vectors. Where none is in use, as nearly always, none is kept.
20: cmp byte ptr [rip + {vectors}], 1
    jb 19b
    ja 21f
    vorps ymm8, ymm0, ymm1
    vorps ymm9, ymm2, ymm3
    vorps ymm8, ymm8, ymm9
    .if \is_return == 0
    vorps ymm10, ymm4, ymm5
    vorps ymm11, ymm6, ymm7
    vorps ymm10, ymm10, ymm11
    vorps ymm8, ymm8, ymm10
    .endif
    vextractf128 xmm8, ymm8, 1
    vptest xmm8, xmm8
    jnz 22f
    vzeroupper
    jmp 19b
21: vporq zmm8, zmm0, zmm1
    vporq zmm9, zmm2, zmm3
    vporq zmm8, zmm8, zmm9
    .if \is_return == 0
    vporq zmm10, zmm4, zmm5
    vporq zmm11, zmm6, zmm7
    vporq zmm10, zmm10, zmm11
    vporq zmm8, zmm8, zmm10
    .endif
    vptestmq k1, zmm8, zmm8
    kmovw esi, k1
    test esi, 0xfc
    jnz 22f
    vzeroupper
    jmp 19b
22: lea rdi, [rip + \calls]
    mov rsi, rsp
    call gp1_function_apart
    jmp 18b

15: lea rdi, [rip + {enter}]
    xor esi, esi
    call gp1_function_apart
    jmp 14b
16: lea rdi, [rip + {leave}]
    mov rsi, rax
    call gp1_function_apart
    jmp 17b

    # The thread is in a trampoline already, and this is passed by: unless that one is no more, as a handler that
    # interrupted it has left by longjmp. Then its word is below this stack pointer; but so it is in a
    # handler on a signal stack that lies higher, and there the system says so.
    .cfi_adjust_cfa_offset -\room
13: cmp qword ptr fs:[r11], rsp
    jae 11f
    sub rsp, 56
    .cfi_adjust_cfa_offset 56
    mov qword ptr [rsp + 24], rax
    mov qword ptr [rsp + 32], rcx
    mov qword ptr [rsp + 40], rdi
    mov qword ptr [rsp + 48], rsi
    mov dword ptr [rsp + 8], 0
    mov eax, {sigaltstack}
    xor edi, edi
    mov rsi, rsp
    syscall
    test dword ptr [rsp + 8], {on_stack}
    mov rax, qword ptr [rsp + 24]
    mov rcx, qword ptr [rsp + 32]
    mov rdi, qword ptr [rsp + 40]
    mov rsi, qword ptr [rsp + 48]
    lea rsp, [rsp + 56]
    .cfi_adjust_cfa_offset -56
    mov r11, qword ptr [rip + gp1_function_thread@GOTTPOFF]
    jz 12b
11: lock inc qword ptr [rip + {missed}]
    .if \id == 0
    lea rsp, [rsp + 8]
    .cfi_adjust_cfa_offset -8
    ret
    .else
    ret 8
    .endif
    .cfi_endproc
.size \name, . - \name
.endm

# The same for a frame at rdi, for gp1_function_apart.
.macro GP1_CALLS name, function
.p2align 4
.type \name,@function
\name:
    .cfi_startproc
    push rbx
    .cfi_def_cfa_offset 16
    .cfi_offset rbx, -16
    mov rbx, rdi
    GP1_OPS rbx, \function
    pop rbx
    .cfi_def_cfa_offset 8
    ret
    .cfi_endproc
.size \name, . - \name
.endm

.pushsection .text.gp1_function,"ax",@progbits
GP1_TRAMPOLINE gp1_function_entry, 8, 16, 232, {op_entry}, -16, 0, gp1_function_entries
GP1_TRAMPOLINE gp1_function_tail, 8, 16, 232, {op_exit}, -16, 0, gp1_function_exits
GP1_TRAMPOLINE gp1_function_exit, 0, 8, 240, {op_exit}, -8, 1, gp1_function_exits
GP1_CALLS gp1_function_entries, {op_entry}
GP1_CALLS gp1_function_exits, {op_exit}

# rdi(rsi) with the upper parts of vectors 0 to 7 kept; any result is in rax.
.globl gp1_function_apart
.hidden gp1_function_apart
.p2align 4
.type gp1_function_apart,@function
gp1_function_apart:
    .cfi_startproc
    push rbp
    .cfi_def_cfa_offset 16
    .cfi_offset rbp, -16
    mov rbp, rsp
    .cfi_def_cfa_register rbp
    mov rax, rdi
    mov rdi, rsi
    cmp byte ptr [rip + {vectors}], 1
    jb 31f
    ja 34f
    vorps ymm8, ymm0, ymm1
    vorps ymm9, ymm2, ymm3
    vorps ymm10, ymm4, ymm5
    vorps ymm11, ymm6, ymm7
    vorps ymm8, ymm8, ymm9
    vorps ymm10, ymm10, ymm11
    vorps ymm8, ymm8, ymm10
    vextractf128 xmm8, ymm8, 1
    vptest xmm8, xmm8
    jnz 33f
30: vzeroupper
31: call rax
32: pop rbp
    .cfi_remember_state
    .cfi_def_cfa rsp, 8
    ret
    .cfi_restore_state
33: sub rsp, 256
    vmovups ymmword ptr [rsp], ymm0
    vmovups ymmword ptr [rsp + 32], ymm1
    vmovups ymmword ptr [rsp + 64], ymm2
    vmovups ymmword ptr [rsp + 96], ymm3
    vmovups ymmword ptr [rsp + 128], ymm4
    vmovups ymmword ptr [rsp + 160], ymm5
    vmovups ymmword ptr [rsp + 192], ymm6
    vmovups ymmword ptr [rsp + 224], ymm7
    call rax
    vmovups ymm0, ymmword ptr [rsp]
    vmovups ymm1, ymmword ptr [rsp + 32]
    vmovups ymm2, ymmword ptr [rsp + 64]
    vmovups ymm3, ymmword ptr [rsp + 96]
    vmovups ymm4, ymmword ptr [rsp + 128]
    vmovups ymm5, ymmword ptr [rsp + 160]
    vmovups ymm6, ymmword ptr [rsp + 192]
    vmovups ymm7, ymmword ptr [rsp + 224]
    mov rsp, rbp
    jmp 32b
34: vporq zmm8, zmm0, zmm1
    vporq zmm9, zmm2, zmm3
    vporq zmm10, zmm4, zmm5
    vporq zmm11, zmm6, zmm7
    vporq zmm8, zmm8, zmm9
    vporq zmm10, zmm10, zmm11
    vporq zmm8, zmm8, zmm10
    vptestmq k1, zmm8, zmm8
    kmovw esi, k1
    test esi, 0xfc
    jz 30b
    sub rsp, 512
    vmovups zmmword ptr [rsp], zmm0
    vmovups zmmword ptr [rsp + 64], zmm1
    vmovups zmmword ptr [rsp + 128], zmm2
    vmovups zmmword ptr [rsp + 192], zmm3
    vmovups zmmword ptr [rsp + 256], zmm4
    vmovups zmmword ptr [rsp + 320], zmm5
    vmovups zmmword ptr [rsp + 384], zmm6
    vmovups zmmword ptr [rsp + 448], zmm7
    call rax
    vmovups zmm0, zmmword ptr [rsp]
    vmovups zmm1, zmmword ptr [rsp + 64]
    vmovups zmm2, zmmword ptr [rsp + 128]
    vmovups zmm3, zmmword ptr [rsp + 192]
    vmovups zmm4, zmmword ptr [rsp + 256]
    vmovups zmm5, zmmword ptr [rsp + 320]
    vmovups zmm6, zmmword ptr [rsp + 384]
    vmovups zmm7, zmmword ptr [rsp + 448]
    mov rsp, rbp
    jmp 32b
    .cfi_endproc
.size gp1_function_apart, . - gp1_function_apart
.popsection
