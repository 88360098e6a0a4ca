/*
 * The EPC of enclaves that were only created cannot be reclaimed (SECS, VA page): CREATE fails with
 * ENOMEM when nothing is left, and works again when an enclave has been closed.
 *
 * enclave: ops
 * run: --epc 2M
 */
#include "host.h"

#define MANY 600

int main(int argc, char **argv)
{
    static struct enclave e[MANY];
    int count = 0;

    CHECK(argc >= 3, "arguments");
    for (; count < MANY; count++) {
        CHECK(!enclave_open(&e[count], argv[1]), "%s: %s", e[count].step, strerror(errno));
        /* No mapping is needed to create an enclave. */
        e[count].base = e[count].size;
        if (enclave_create(&e[count]))
            break;
    }
    SAME(errno, ENOMEM);
    CHECK(count > 100 && count <= 256, "%d enclaves in 2 MiB", count);
    ok("ENOMEM when the EPC is full");
    DO(close(e[0].fd));
    DO(enclave_create(&e[count]));
    ok("one closed, one created");
    return 0;
}
