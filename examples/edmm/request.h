/* What the host asks the enclave for: RDI holds the address of a request in host memory. */
#ifndef EDMM_REQUEST_H
#define EDMM_REQUEST_H

#include <stdint.h>

enum what {
    ASK_READ,   /* result = 8 bytes at address */
    ASK_WRITE,  /* value to the 8 bytes at address */
    ASK_COPY,   /* length bytes from value, in host memory, to address */
    ASK_CALL,   /* result = what the function at address returns */
    ASK_ACCEPT, /* EACCEPT: SECINFO.FLAGS in value, result = its status */
    ASK_EXTEND, /* EMODPE: SECINFO.FLAGS in value */
};

struct request {
    uint64_t what, address, value, length, result;
};

#endif
