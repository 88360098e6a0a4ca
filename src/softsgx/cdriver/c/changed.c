/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* What has changed since a snapshot: a digest of a state is one of this, and so takes microseconds. */
#include "runtime.h"

extern struct k_line { const u64 *at; u64 word[8]; } k_lines[];
#define LINES_MAX 0x80000

/* Add the lines of 64 bytes that differ from a copy to those found so far: how many there are then. */
u64 k_changed(const u64 *now, const u64 *copy, u64 lines, u64 found)
{
	for (; lines--; now += 8, copy += 8) {
		u64 differs = (now[0] ^ copy[0]) | (now[1] ^ copy[1]) | (now[2] ^ copy[2]) |
			(now[3] ^ copy[3]) | (now[4] ^ copy[4]) | (now[5] ^ copy[5]) |
			(now[6] ^ copy[6]) | (now[7] ^ copy[7]);

		if (!differs)
			continue;
		if (found == LINES_MAX)
			k_unmodelled("a state with more changes than there is room for");
		k_lines[found].at = now;
		memcpy(k_lines[found++].word, now, 64);
	}
	return found;
}
