# One stub for each vector: pushes an error code where the CPU does not, then the vector, and calls the dispatcher.

.section .text
.macro STUB vector
.balign 16
    .if \vector == 8 || (\vector >= 10 && \vector <= 14) || \vector == 17 || \vector == 21 || \vector == 29 || \vector == 30
    .else
        push 0
    .endif
    push \vector
    jmp interrupt_common
.endm

.balign 16
.global interrupt_stubs
interrupt_stubs:
.altmacro
.set number, 0
.rept 256
    STUB %number
    .set number, number + 1
.endr
.noaltmacro

interrupt_common:
    push rax
    push rcx
    push rdx
    push rbx
    push rbp
    push rsi
    push rdi
    push r8
    push r9
    push r10
    push r11
    push r12
    push r13
    push r14
    push r15
    cld
    mov rdi, rsp
    mov rbp, rsp
    and rsp, -16
    call interrupt_dispatch
    mov rsp, rbp
    pop r15
    pop r14
    pop r13
    pop r12
    pop r11
    pop r10
    pop r9
    pop r8
    pop rdi
    pop rsi
    pop rbp
    pop rbx
    pop rdx
    pop rcx
    pop rax
    add rsp, 16                        # vector, error code
    iretq
