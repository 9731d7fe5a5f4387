# From the multiboot2 loader (32-bit protected mode, paging off) to 64-bit Rust at -2 GiB.
#
# Only this file runs at physical addresses. It prints stage 01 before it touches anything else, so that a machine which
# stops here shows where; a machine without long mode stops with a named cause.

.set VIRTUAL_OFFSET, 0xFFFFFFFF80000000
.set DIRECT_MAP_SLOT, 256              # 0xFFFF800000000000
.set IMAGE_SLOT, 511

.section .multiboot2, "a", @progbits
.balign 8
multiboot2_header:
    .long 0xE85250D6                   # magic
    .long 0                            # i386
    .long multiboot2_header_end - multiboot2_header
    .long -(0xE85250D6 + 0 + (multiboot2_header_end - multiboot2_header))
    .balign 8
    .short 5, 1                        # framebuffer, optional: text or linear, whatever the loader has
    .long 20, 0, 0, 0
    .balign 8
    .short 6, 0                        # page-align modules
    .long 8
    .balign 8
    .short 0, 0
    .long 8
multiboot2_header_end:

.section .boot, "awx", @progbits
.code32
.global boot_entry
boot_entry:
    cli
    cld
    mov esp, offset boot_stack_top
    mov edi, eax                       # loader's magic
    mov esi, ebx                       # multiboot2 information
    rdtsc
    mov [boot_entry_ticks], eax
    mov [boot_entry_ticks + 4], edx

    mov ebx, offset stage_01
    call boot_print

    # Long mode there? (CPUID 0x80000001 EDX[29]; NX is bit 20.)
    mov eax, 0x80000000
    cpuid
    mov ebp, offset no_long_mode
    cmp eax, 0x80000001
    jb boot_refuse
    mov eax, 0x80000001
    cpuid
    test edx, 1 << 29
    jz boot_refuse
    mov ebp, offset no_nx
    test edx, 1 << 20
    jz boot_refuse

    # First 4 GiB in 2 MiB pages: at 0 (until Rust drops it), in the direct map, and its first GiB at -2 GiB.
    xor ecx, ecx
1:  mov eax, ecx
    shl eax, 21
    or eax, 0x83
    mov [boot_pd + ecx * 8], eax
    mov dword ptr [boot_pd + ecx * 8 + 4], 0
    inc ecx
    cmp ecx, 2048
    jb 1b
    xor ecx, ecx
2:  mov eax, ecx
    shl eax, 12
    add eax, offset boot_pd + 3
    mov [boot_pdpt + ecx * 8], eax
    inc ecx
    cmp ecx, 4
    jb 2b
    mov dword ptr [boot_pdpt_image + 510 * 8], offset boot_pd + 3
    mov dword ptr [boot_pml4], offset boot_pdpt + 3
    mov dword ptr [boot_pml4 + DIRECT_MAP_SLOT * 8], offset boot_pdpt + 3
    mov dword ptr [boot_pml4 + IMAGE_SLOT * 8], offset boot_pdpt_image + 3

    mov eax, cr4
    or eax, 1 << 5                     # PAE
    mov cr4, eax
    mov eax, offset boot_pml4
    mov cr3, eax
    mov ecx, 0xC0000080                # EFER: LME, NXE
    rdmsr
    or eax, (1 << 8) | (1 << 11)
    wrmsr
    mov eax, 0x80010033                # PG WP NE ET MP PE
    mov cr0, eax
    lgdt [boot_gdtr]
    # Far return into 64-bit code.
    mov eax, 8
    push eax
    mov eax, offset boot_long
    push eax
    retf

# Prints the string at EBX on COM1 (bounded wait: there may be no UART) and leaves ESI, EDI, EBP alone.
boot_print:
    mov al, [ebx]
    test al, al
    jz 3f
    mov ah, al
    mov ecx, 100000
1:  mov dx, 0x3FD
    in al, dx
    test al, 0x20
    jnz 2f
    loop 1b
2:  mov al, ah
    mov dx, 0x3F8
    out dx, al
    inc ebx
    jmp boot_print
3:  ret

# EBP = cause. Says it and halts: there is nothing to return to.
boot_refuse:
    mov ebx, offset refuse_prefix
    call boot_print
    mov ebx, ebp
    call boot_print
1:  hlt
    jmp 1b

stage_01:       .asciz "\r\n(oxen) [stage 01] entered from the boot loader\r\n"
refuse_prefix:  .asciz "(oxen) STOP boot: this CPU lacks "
no_long_mode:   .asciz "long mode (64-bit)\r\n"
no_nx:          .asciz "no-execute pages (NX); enable it in the firmware setup\r\n"

.code64
boot_long:
    xor eax, eax
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov fs, ax
    mov gs, ax
    movabs rsp, offset early_stack_top
    movabs rax, offset rust_entry
    xor ebp, ebp
    mov rdx, [rip + boot_entry_ticks]
    jmp rax                            # rust_entry(magic: edi, information: esi, entry ticks: rdx)

# Application processors: copied to a page below 1 MiB and started there by SIPI in real mode. The copy's own address
# is CS << 4; the parameter block lies at its end and is filled by the boot CPU.
.code16
.balign 16
.global trampoline_start
trampoline_start:
    cli
    cld
    mov ax, cs
    mov ds, ax
    xor ebx, ebx
    mov bx, ax
    shl ebx, 4                         # linear base of the copy
    .byte 0x0F, 0x01, 0x16             # lgdt [disp16]: the assembler would relocate the difference
    .word trampoline_gdtr - trampoline_start
    mov eax, cr4
    or eax, 1 << 5
    mov cr4, eax
    .byte 0x66, 0xA1                   # mov eax, [disp16]
    .word trampoline_cr3 - trampoline_start
    mov cr3, eax
    mov ecx, 0xC0000080
    rdmsr
    or eax, (1 << 8) | (1 << 11)
    wrmsr
    mov eax, 0x80010033
    mov cr0, eax
    # The far pointer was fixed up by the boot CPU to the copy's own address.
    .byte 0x66, 0xFF, 0x2E             # jmp far [disp16], 32-bit offset
    .word trampoline_far - trampoline_start
.code64
trampoline_long:
    xor eax, eax
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov fs, ax
    mov gs, ax
    mov rsp, [rip + trampoline_stack]
    mov rdi, [rip + trampoline_argument]
    xor ebp, ebp
    jmp [rip + trampoline_entry]
.balign 8
trampoline_gdt:
    .quad 0
    .quad 0x00AF9B000000FFFF           # 64-bit code
    .quad 0x00CF93000000FFFF           # data
trampoline_gdtr:
    .word 23
.global trampoline_gdt_base
trampoline_gdt_base:
    .long trampoline_gdt - trampoline_start
.balign 4
.global trampoline_far
trampoline_far:
    .long trampoline_long - trampoline_start
    .word 8
.balign 8
.global trampoline_cr3
trampoline_cr3:      .quad 0
.global trampoline_stack
trampoline_stack:    .quad 0
.global trampoline_argument
trampoline_argument: .quad 0
.global trampoline_entry
trampoline_entry:    .quad 0
.global trampoline_end
trampoline_end:

.balign 8
boot_entry_ticks: .quad 0
boot_gdt:
    .quad 0
    .quad 0x00AF9B000000FFFF
    .quad 0x00CF93000000FFFF
boot_gdtr:
    .word 23
    .long boot_gdt

.balign 4096
boot_pml4:       .fill 512, 8, 0
boot_pdpt:       .fill 512, 8, 0
boot_pdpt_image: .fill 512, 8, 0
boot_pd:         .fill 2048, 8, 0
boot_stack:      .fill 512, 8, 0
boot_stack_top:
