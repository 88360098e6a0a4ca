/*
 * The lock of unfair_lock.c on the real processor: more threads than processors, and the
 * supervisor serves the one that holds it while the others spin.
 *
 * enclave: ops threads=12 stack_pages=1 size=0x2000000
 * engines: native
 */
#define THREADS 12
#define PAGES 5
#include "unfair_lock.c"
