# PVH entry: 32-bit, paging off. Identity-maps the first GiB and the one below 4 GiB, and goes to 64-bit code; the second
# vCPU comes the same way from a start-up interrupt.

.section .note.Xen, "a", @note
.balign 4
    .long 4, 4, 18                     # name size, descriptor size, PHYS32_ENTRY
    .asciz "Xen"
    .long guest_entry

.section .text
.code32
.global guest_entry
guest_entry:
    cli
    mov esp, offset stack_top
    mov [start_info_address], ebx
    xor ecx, ecx
1:  mov eax, ecx
    shl eax, 21
    or eax, 0x83
    mov [page_directory + ecx * 8], eax
    add eax, 0xC0000010                # uncached: the local APIC is there
    mov [device_directory + ecx * 8], eax
    inc ecx
    cmp ecx, 512
    jb 1b
    mov dword ptr [page_pointers], offset page_directory + 3
    mov dword ptr [page_pointers + 24], offset device_directory + 3
    mov dword ptr [page_root], offset page_pointers + 3
    mov ebp, offset first_long
    jmp enter_long

second_protected:
    mov eax, 16
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov esp, offset second_stack_top
    mov ebp, offset second_long

# EBP = where to go on in 64-bit mode.
enter_long:
    mov eax, cr4
    or eax, 0x620                      # PAE, OSFXSR, OSXMMEXCPT
    mov cr4, eax
    mov eax, offset page_root
    mov cr3, eax
    mov ecx, 0xC0000080
    rdmsr
    or eax, 1 << 8
    wrmsr
    mov eax, 0x80000033
    mov cr0, eax
    lgdt [gdt_pointer]
    mov eax, 8
    push eax
    push ebp
    retf

.code64
first_long:
    call load_segments
    movabs rsp, offset stack_top
    xor ebp, ebp
    call runtime_main
1:  hlt
    jmp 1b

second_long:
    call load_segments
    movabs rsp, offset second_stack_top
    xor ebp, ebp
    call runtime_second
1:  hlt
    jmp 1b

# Where `VCPUOP_initialise` starts the second vCPU: in 64-bit mode already, with segments of its own.
.global second_by_hypercall
second_by_hypercall:
    lgdt [gdt_pointer]
    push 8
    lea rax, [second_long]
    push rax
    retfq

.global load_segments
load_segments:
    mov eax, 16
    mov ds, eax
    mov es, eax
    mov ss, eax
    ret

# The event callback. GS: its vCPU's state (`PerVcpu`). What was pending is the interrupted code's to look at.
.global callback_entry
callback_entry:
    push rax
    push rdx
    rdtsc
    shl rdx, 32
    or rax, rdx
    mov gs:[8], rax
    mov rax, gs:[0]
    mov byte ptr [rax], 0
    mov qword ptr [rax + 8], 0
    mov qword ptr [shared_page + 2048], 0
    pop rdx
    pop rax
    iretq

# An interrupt from the local APIC, which is in x2APIC mode if `apic_by_msr` says so.
.global apic_interrupt_entry
apic_interrupt_entry:
    push rax
    push rcx
    push rdx
    rdtsc
    shl rdx, 32
    or rax, rdx
    mov gs:[16], rax
    cmp byte ptr [apic_by_msr], 0
    jne 1f
    mov eax, 0xFEE000B0
    mov dword ptr [rax], 0
    jmp 2f
1:  mov ecx, 0x80B
    xor eax, eax
    xor edx, edx
    wrmsr
2:  pop rdx
    pop rcx
    pop rax
    iretq

# #GP: counted, and the two bytes of RDMSR or WRMSR passed over.
.global protection_entry
protection_entry:
    inc qword ptr gs:[24]
    add qword ptr [rsp + 8], 2
    add rsp, 8
    iretq

.section .rodata
.balign 8
gdt:
    .quad 0
    .quad 0x00AF9B000000FFFF           # 8: 64-bit code
    .quad 0x00CF93000000FFFF           # 16: data
    .quad 0x00CF9B000000FFFF           # 24: 32-bit code
.global gdt_pointer
gdt_pointer:
    .word 31
    .quad gdt                          # 64-bit code reads all of it

# Copied to 0x8000, where the start-up interrupt leads.
.code16
.global trampoline_start
trampoline_start:
    cli
    mov ax, cs
    mov ds, ax
    .byte 0x66, 0x0F, 0x01, 0x16       # lgdt [disp16]: the assembler would relocate the difference
    .word trampoline_gdt_pointer - trampoline_start
    mov eax, cr0
    or eax, 1
    mov cr0, eax
    .byte 0x66, 0xEA                   # jmp 24:second_protected
    .long second_protected
    .word 24
trampoline_gdt_pointer:
    .word 31
    .quad gdt                          # 64-bit code reads all of it
.global trampoline_end
trampoline_end:
.code64

.section .bss
.balign 4096
page_root:        .fill 4096, 1, 0
page_pointers:    .fill 4096, 1, 0
page_directory:   .fill 4096, 1, 0
device_directory: .fill 4096, 1, 0
.global shared_page
.global page_root
.global page_directory
.global second_stack_top
shared_page:      .fill 4096, 1, 0
stack:            .fill 262144, 1, 0
stack_top:
second_stack:     .fill 32768, 1, 0
second_stack_top:
.global apic_by_msr
apic_by_msr:      .byte 0
.balign 8
.global start_info_address
start_info_address: .quad 0
