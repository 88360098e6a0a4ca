/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/*
 * What an SGX driver asks of its kernel. Every <linux/...>, <asm/...> and <crypto/...> header that a
 * tree does not bring itself is a file that only includes this one. Written from names, signatures
 * and semantics; no text of the kernel.
 */
#ifndef SOFTSGX_KERNEL_H
#define SOFTSGX_KERNEL_H
#include "types.h"
#include "request.h"
#include "print.h"
#include "bits.h"
#include "list.h"
#include "refcount.h"
#include "lock.h"
#include "memory.h"
#include "mm.h"
#include "xarray.h"
#include "file.h"
#include "sched.h"
#include "machine.h"
#endif
