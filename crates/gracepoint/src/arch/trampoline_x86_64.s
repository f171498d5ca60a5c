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

# On entry: [rsp + \id] is the pushed number, [rsp + \at] the return address of the traced function's caller, and
# \room more bytes make the stack aligned. \exit says what is hit, \drop how many bytes `ret` leaves behind.
.macro GP1_TRAMPOLINE name, id, at, room, exit, cfa_rip
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
    mov qword ptr [rsp + 128], rdi
    mov qword ptr [rsp + 136], rsi
    mov qword ptr [rsp + 144], rdx
    mov qword ptr [rsp + 152], rcx
    mov qword ptr [rsp + 160], r8
    mov qword ptr [rsp + 168], r9
    mov qword ptr [rsp + 176], rax
    mov qword ptr [rsp + 184], r10
    movups xmmword ptr [rsp], xmm0
    movups xmmword ptr [rsp + 16], xmm1
    movups xmmword ptr [rsp + 32], xmm2
    movups xmmword ptr [rsp + 48], xmm3
    movups xmmword ptr [rsp + 64], xmm4
    movups xmmword ptr [rsp + 80], xmm5
    movups xmmword ptr [rsp + 96], xmm6
    movups xmmword ptr [rsp + 112], xmm7
    mov rax, qword ptr [rip + gp1_rcu_thread@GOTTPOFF]
    mov rax, qword ptr fs:[rax + {slot_word}]
    mov rcx, qword ptr [rip + {trace} + {fast}]
    test rax, rcx
    jz 15f
    add rax, rcx
    add rax, qword ptr [rcx + {rank}]
    inc qword ptr [rax]
14: mov qword ptr [rsp + 192], rax
    mov edi, dword ptr [rsp + \room + \id]
    shr edi, 8
    lea rsi, [rsp + \room + \at]
    mov edx, \exit
    call gp1_function_hit
    mov rax, qword ptr [rsp + 192]
    test al, {how}
    jnz 16f
    inc qword ptr [rax + {unlock}]
17: mov r11, qword ptr [rip + gp1_function_thread@GOTTPOFF]
    mov qword ptr fs:[r11], 0
    movups xmm0, xmmword ptr [rsp]
    movups xmm1, xmmword ptr [rsp + 16]
    movups xmm2, xmmword ptr [rsp + 32]
    movups xmm3, xmmword ptr [rsp + 48]
    movups xmm4, xmmword ptr [rsp + 64]
    movups xmm5, xmmword ptr [rsp + 80]
    movups xmm6, xmmword ptr [rsp + 96]
    movups xmm7, xmmword ptr [rsp + 112]
    mov rdi, qword ptr [rsp + 128]
    mov rsi, qword ptr [rsp + 136]
    mov rdx, qword ptr [rsp + 144]
    mov rcx, qword ptr [rsp + 152]
    mov r8, qword ptr [rsp + 160]
    mov r9, qword ptr [rsp + 168]
    mov rax, qword ptr [rsp + 176]
    mov r10, qword ptr [rsp + 184]
    add rsp, \room
    .cfi_adjust_cfa_offset -\room
    jmp 18f

    # The word is of a trampoline that is no more, if it is below this stack pointer.
13: cmp qword ptr fs:[r11], rsp
    jb 12b
    lock inc qword ptr [rip + {missed}]
18:
    .if \id == 0
    add rsp, 8
    .cfi_adjust_cfa_offset -8
    ret
    .cfi_adjust_cfa_offset 8
    .else
    ret 8
    .endif

    .cfi_adjust_cfa_offset \room
15: lea rdi, [rip + {enter}]
    xor esi, esi
    call gp1_function_apart
    jmp 14b
16: lea rdi, [rip + {leave}]
    mov rsi, rax
    call gp1_function_apart
    jmp 17b
    .cfi_endproc
.size \name, . - \name
.endm

.pushsection .text.gp1_function,"ax",@progbits
GP1_TRAMPOLINE gp1_function_entry, 8, 16, 216, 0, -16
GP1_TRAMPOLINE gp1_function_tail, 8, 16, 216, 1, -16
GP1_TRAMPOLINE gp1_function_exit, 0, 8, 208, 1, -8

# hit(id, frame, exit), by way of `apart` where it may touch wide vectors.
.p2align 4
.type gp1_function_hit,@function
gp1_function_hit:
    .cfi_startproc
    .if {always_apart}
    push rdx
    .cfi_adjust_cfa_offset 8
    push rsi
    .cfi_adjust_cfa_offset 8
    push rdi
    .cfi_adjust_cfa_offset 8
    mov rsi, rsp
    lea rdi, [rip + 21f]
    call gp1_function_apart
    add rsp, 24
    .cfi_adjust_cfa_offset -24
    ret
    .else
    jmp {hit}
    .endif
    .cfi_endproc
21: mov rsi, qword ptr [rdi + 8]
    mov rdx, qword ptr [rdi + 16]
    mov rdi, qword ptr [rdi]
    jmp {hit}
.size gp1_function_hit, . - gp1_function_hit

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
