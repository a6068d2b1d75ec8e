/* Answer CPUID without AVX-512, VNNI and AMX for libraries whose cpuid instructions avx2_only.py replaced by int3. */

#define _GNU_SOURCE
#include <cpuid.h>
#include <signal.h>
#include <stdlib.h>
#include <ucontext.h>

/* Bits by leaf 7: Intel Software Developer's Manual, volume 2A, CPUID. */
#define EBX_0 (1u << 16 | 1u << 17 | 1u << 21 | 1u << 26 | 1u << 27 | 1u << 28 | 1u << 30 | 1u << 31) /* AVX512* */
#define ECX_0 (1u << 1 | 1u << 6 | 1u << 11 | 1u << 12 | 1u << 14)                 /* AVX512_VBMI, VBMI2, VNNI, ... */
#define EDX_0 (1u << 2 | 1u << 3 | 1u << 8 | 1u << 22 | 1u << 23 | 1u << 24 | 1u << 25)    /* AMX, AVX512_FP16, ... */
#define EAX_1 (1u << 4 | 1u << 5 | 1u << 21 | 1u << 23)         /* AVX_VNNI, AVX512_BF16, AMX_FP16, AVX_IFMA */
#define EDX_1 (1u << 4 | 1u << 5 | 1u << 10 | 1u << 19)         /* AVX_VNNI_INT8, NE_CONVERT, VNNI_INT16, AVX10 */

static void answer(int number, siginfo_t *info, void *context)
{
    (void)number;
    (void)info;
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    unsigned leaf = (unsigned)registers[REG_RAX], part = (unsigned)registers[REG_RCX], eax, ebx, ecx, edx;
    __cpuid_count(leaf, part, eax, ebx, ecx, edx);
    if (leaf == 7 && part == 0)
        ebx &= ~EBX_0, ecx &= ~ECX_0, edx &= ~EDX_0;
    if (leaf == 7 && part == 1)
        eax &= ~EAX_1, edx &= ~EDX_1;
    registers[REG_RAX] = eax, registers[REG_RBX] = ebx, registers[REG_RCX] = ecx, registers[REG_RDX] = edx;
}

__attribute__((constructor)) static void listen(void)
{
    struct sigaction action = {.sa_sigaction = answer, .sa_flags = SA_SIGINFO};
    if (sigaction(SIGTRAP, &action, NULL))
        abort();
}
