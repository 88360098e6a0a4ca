/*
 * The words of the Linux SGX interface: ioctls of /dev/sgx_enclave, the structures they take, and
 * the argument of the vDSO function that enters enclaves. Names of fields as in Linux 6.12,
 * arch/x86/include/uapi/asm/sgx.h; flags and page types as in SDM 3D. Good for hosts and enclaves.
 */
#ifndef EDMM_SGX_H
#define EDMM_SGX_H

#include <stdint.h>

#define PAGE_SIZE 4096UL

/* Leaves of ENCLU. */
enum { EREPORT = 0, EGETKEY = 1, EENTER = 2, ERESUME = 3, EEXIT = 4, EACCEPT = 5, EMODPE = 6,
       EACCEPTCOPY = 7 };

/* SECINFO.FLAGS. R, W and X have the values of PROT_READ, PROT_WRITE and PROT_EXEC. */
#define SGX_R 0x1UL
#define SGX_W 0x2UL
#define SGX_X 0x4UL
#define SGX_PENDING 0x8UL
#define SGX_MODIFIED 0x10UL
#define SGX_PR 0x20UL
#define SGX_PT_TCS 0x100UL
#define SGX_PT_REG 0x200UL
#define SGX_PT_TRIM 0x400UL

/* What MODIFY_TYPES takes: the page type alone. */
#define PT_TCS 1UL
#define PT_TRIM 4UL

/* ATTRIBUTES, and the two bits of XFRM that every enclave has: x87 and SSE. */
#define SGX_ATTR_DEBUG 0x2UL
#define SGX_ATTR_MODE64BIT 0x4UL
#define SGX_XFRM_LEGACY 0x3UL

/* Status codes of leaves that this code looks at. */
#define SGX_PAGE_ATTRIBUTES_MISMATCH 19UL
#define SGX_PAGE_NOT_MODIFIABLE 20UL

/* Vectors, and bits of the error code of a page fault. */
enum { VECTOR_DE = 0, VECTOR_UD = 6, VECTOR_GP = 13, VECTOR_PF = 14 };
#define PF_P 0x1
#define PF_W 0x2
#define PF_U 0x4
#define PF_I 0x10
#define PF_SGX 0x8000

struct sgx_secinfo {
    uint64_t flags;
    uint64_t reserved[7];
} __attribute__((aligned(64)));

struct sgx_secs {
    uint64_t size;
    uint64_t base;
    uint32_t ssaframesize;
    uint32_t miscselect;
    uint8_t reserved1[24];
    uint64_t attributes;
    uint64_t xfrm;
    uint8_t reserved2[PAGE_SIZE - 64];
};

struct sgx_enclave_create {
    uint64_t src;
};

struct sgx_enclave_add_pages {
    uint64_t src, offset, length, secinfo, flags, count;
};

struct sgx_enclave_init {
    uint64_t sigstruct;
};

struct sgx_enclave_provision {
    uint64_t fd;
};

struct sgx_enclave_restrict_permissions {
    uint64_t offset, length, permissions, result, count;
};

struct sgx_enclave_modify_types {
    uint64_t offset, length, page_type, result, count;
};

struct sgx_enclave_remove_pages {
    uint64_t offset, length, count;
};

#define SGX_PAGE_MEASURE 1UL

#define SGX_IOC_ENCLAVE_CREATE 0x4008A400UL
#define SGX_IOC_ENCLAVE_ADD_PAGES 0xC030A401UL
#define SGX_IOC_ENCLAVE_INIT 0x4008A402UL
#define SGX_IOC_ENCLAVE_PROVISION 0x4008A403UL
#define SGX_IOC_ENCLAVE_RESTRICT_PERMISSIONS 0xC028A405UL
#define SGX_IOC_ENCLAVE_MODIFY_TYPES 0xC028A406UL
#define SGX_IOC_ENCLAVE_REMOVE_PAGES 0xC018A407UL

#define SIGSTRUCT_SIZE 1808
#define SIGSTRUCT_ENCLAVEHASH 960

struct sgx_enclave_run {
    uint64_t tcs;
    uint32_t function; /* the last leaf: EEXIT, or EENTER or ERESUME if an exception came out */
    uint16_t exception_vector;
    uint16_t exception_error_code;
    uint64_t exception_addr;
    uint64_t user_handler;
    uint64_t user_data;
    uint8_t reserved[216];
};

/* __vdso_sgx_enter_enclave: an ordinary C function with its seventh argument on the stack. */
typedef int (*sgx_enter_enclave_t)(unsigned long rdi, unsigned long rsi, unsigned long rdx,
                                   unsigned int function, unsigned long r8, unsigned long r9,
                                   struct sgx_enclave_run *run);

_Static_assert(sizeof(struct sgx_secs) == PAGE_SIZE, "SECS");
_Static_assert(sizeof(struct sgx_secinfo) == 64, "SECINFO");
_Static_assert(sizeof(struct sgx_enclave_run) == 256, "sgx_enclave_run");

#endif
