/*
 * EREPORT for this enclave itself, EGETKEY of the key it is authenticated with, and AES-CMAC of the
 * report with that key, by AES-NI; then SEAL keys, and what EGETKEY refuses.
 *
 * cc: -maes
 */
#include <wmmintrin.h>

#include "inside.h"

enum { KEY_EINITTOKEN, KEY_PROVISION, KEY_PROVISION_SEAL, KEY_REPORT, KEY_SEAL };

struct targetinfo {
    uint8_t measurement[32];
    uint64_t attributes, xfrm;
    uint8_t cet, reserved1;
    uint16_t configsvn;
    uint32_t miscselect;
    uint8_t reserved2[8], configid[64], reserved3[384];
} __attribute__((aligned(512)));

struct keyrequest {
    uint16_t keyname, keypolicy, isvsvn;
    uint8_t cet, reserved1;
    uint8_t cpusvn[16];
    uint64_t attributemask, xfrmmask;
    uint8_t keyid[32];
    uint32_t miscmask;
    uint16_t configsvn;
    uint8_t reserved2[434];
} __attribute__((packed, aligned(512)));

_Static_assert(sizeof(struct targetinfo) == 512, "TARGETINFO");
_Static_assert(sizeof(struct keyrequest) == 512, "KEYREQUEST");

static struct targetinfo target;
static struct keyrequest request;
static uint8_t report[512] __attribute__((aligned(512)));
static uint8_t data[128] __attribute__((aligned(128)));
static uint8_t key[16] __attribute__((aligned(16)));

static void copy(void *to, const void *from, uint64_t length)
{
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(length) : : "memory");
}

static __m128i next_key(__m128i last, __m128i assist)
{
    assist = _mm_shuffle_epi32(assist, 0xff);
    for (int i = 0; i < 4; i++) {
        assist = _mm_xor_si128(assist, last);
        last = _mm_slli_si128(last, 4);
    }
    return assist;
}

static void expand(__m128i keys[11])
{
    keys[0] = _mm_load_si128((const __m128i *)key);
#define ROUND(i, rcon) keys[i] = next_key(keys[i - 1], _mm_aeskeygenassist_si128(keys[i - 1], rcon))
    ROUND(1, 0x01);
    ROUND(2, 0x02);
    ROUND(3, 0x04);
    ROUND(4, 0x08);
    ROUND(5, 0x10);
    ROUND(6, 0x20);
    ROUND(7, 0x40);
    ROUND(8, 0x80);
    ROUND(9, 0x1b);
    ROUND(10, 0x36);
}

static __m128i encrypt(const __m128i keys[11], __m128i block)
{
    block = _mm_xor_si128(block, keys[0]);
    for (int i = 1; i < 10; i++)
        block = _mm_aesenc_si128(block, keys[i]);
    return _mm_aesenclast_si128(block, keys[10]);
}

/* The subkey for messages of whole blocks: twice E(0) in GF(2^128). NIST SP 800-38B, 6.1 "Subkey
 * Generation". */
static __m128i subkey(const __m128i keys[11])
{
    uint8_t block[16] __attribute__((aligned(16)));
    uint8_t carry = 0;

    _mm_store_si128((__m128i *)block, encrypt(keys, _mm_setzero_si128()));
    uint8_t top = block[0] >> 7;
    for (int i = 15; i >= 0; i--) {
        uint8_t out = block[i] >> 7;

        block[i] = block[i] << 1 | carry;
        carry = out;
    }
    block[15] ^= top ? 0x87 : 0;
    return _mm_load_si128((const __m128i *)block);
}

static void cmac(uint8_t mac[16], const uint8_t *message, int blocks)
{
    __m128i keys[11], sum = _mm_setzero_si128();

    expand(keys);
    for (int i = 0; i < blocks; i++) {
        sum = _mm_xor_si128(sum, _mm_load_si128((const __m128i *)message + i));
        if (i == blocks - 1)
            sum = _mm_xor_si128(sum, subkey(keys));
        sum = encrypt(keys, sum);
    }
    _mm_storeu_si128((__m128i *)mac, sum);
}

/* EREPORT returns nothing in RAX. */
static void ereport(void)
{
    enclu(EREPORT, &target, (uint64_t)data, (uint64_t)report);
}

static uint64_t egetkey(int keyname, uint8_t *to)
{
    request.keyname = keyname;
    uint64_t status = enclu(EGETKEY, &request, (uint64_t)key, 0);

    copy(to, key, sizeof(key));
    return status;
}

/* A report with an empty target, to learn MRENCLAVE; then one whose target is this enclave. */
static void report_for_oneself(struct answer *answer)
{
    for (int i = 0; i < 64; i++)
        data[i] = i;
    ereport();
    copy(target.measurement, report + 64, 32);
    copy(&target.attributes, report + 48, 16);
    copy(&target.miscselect, report + 16, 4);
    ereport();
    copy(answer->report, report, sizeof(answer->report));
    copy(request.keyid, report + 384, 32);
    answer->report_status = egetkey(KEY_REPORT, answer->mac);
    cmac(answer->mac, report, 384 / 16);
}

__attribute__((used)) void serve(struct call *call)
{
    struct answer *answer = (struct answer *)call->a;
    uint8_t none[16];

    report_for_oneself(answer);
    copy(request.cpusvn, report, 16);
    request.isvsvn = *(const uint16_t *)(report + 258);
    request.keypolicy = 1;
    request.attributemask = ~0UL;
    request.xfrmmask = 0;
    answer->seal_status = egetkey(KEY_SEAL, answer->seal);
    egetkey(KEY_SEAL, answer->again);
    request.keyid[0] ^= 1;
    egetkey(KEY_SEAL, answer->other);
    answer->name_status = egetkey(99, none);
    answer->right_status = egetkey(KEY_PROVISION, none);
    request.isvsvn++;
    answer->svn_status = egetkey(KEY_SEAL, none);
}
