/*
 * EREPORT and EGETKEY: the report says what the enclave is, and its MAC is right under the key that
 * the enclave gets as the target of the report. SDM 3D, EREPORT and EGETKEY.
 *
 * enclave: report isvprodid=7 isvsvn=3
 */
#include "host.h"

static uint16_t u16(const uint8_t *at)
{
    return at[0] | at[1] << 8;
}

static uint64_t u64(const uint8_t *at)
{
    uint64_t value;

    memcpy(&value, at, 8);
    return value;
}

int main(int argc, char **argv)
{
    static struct answer answer;
    struct sgx_enclave_run run = {0};
    const uint8_t *sig, *mrsigner, *report = answer.report;
    struct enclave e;
    size_t size;

    start(&e, argc, argv);
    CHECK(argc >= 4, "the third argument is MRSIGNER in a file");
    sig = read_file(argv[2], &size);
    mrsigner = read_file(argv[3], &size);
    CHECK(sig && mrsigner && size == 32, "%s", argv[3]);
    run.tcs = e.tcs[0];
    ask(&run, 0, (uint64_t)&answer, 0, 0);

    SAME(memcmp(report + 64, sig + SIGSTRUCT_ENCLAVEHASH, 32), 0);
    ok("MRENCLAVE is that of SIGSTRUCT");
    SAME(memcmp(report + 128, mrsigner, 32), 0);
    ok("MRSIGNER");
    SAME(u64(report + 48), 0x5);
    SAME(u64(report + 56), 3);
    ok("ATTRIBUTES INIT and MODE64BIT, XFRM 3");
    SAME(u16(report + 256), 7);
    SAME(u16(report + 258), 3);
    ok("ISVPRODID and ISVSVN");
    for (int i = 0; i < 64; i++)
        SAME(report[320 + i], i);
    ok("REPORTDATA");
    for (int i = 0; i < 32; i++)
        SAME(report[96 + i] | report[160 + i], 0);
    SAME(answer.report_status, 0);
    SAME(memcmp(report + 416, answer.mac, 16), 0);
    ok("MAC: AES-CMAC under the REPORT key");

    SAME(answer.seal_status, 0);
    SAME(memcmp(answer.seal, answer.again, 16), 0);
    CHECK(memcmp(answer.seal, answer.other, 16) != 0, "KEYID makes no difference");
    ok("SEAL keys");
    SAME(answer.name_status, 256);
    SAME(answer.right_status, 2);
    SAME(answer.svn_status, 64);
    ok("EGETKEY refuses: unknown name, no right to it, a later ISVSVN");
    return 0;
}
