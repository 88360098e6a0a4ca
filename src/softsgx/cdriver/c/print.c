/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Messages: the conversions that drivers use, formatted here, since the arguments are here. */
#include "runtime.h"

#define va_list __builtin_va_list
#define va_start __builtin_va_start
#define va_arg __builtin_va_arg
#define va_end __builtin_va_end
#define TEXT_MAX 512

struct text { char *at, *end; };

static void put(struct text *t, char c)
{
	if (t->at < t->end)
		*t->at++ = c;
}

static void put_number(struct text *t, u64 n, unsigned int base, bool negative, int width, char pad)
{
	char digits[24];
	int k = 0;

	if (negative)
		n = -n;
	do
		digits[k++] = "0123456789abcdef"[n % base];
	while (n /= base);
	if (negative)
		digits[k++] = '-';
	while (width-- > k)
		put(t, pad);
	while (k)
		put(t, digits[--k]);
}

static void format_text(char *out, const char *f, va_list a)
{
	struct text t = { out, out + TEXT_MAX - 1 };

	for (; *f; f++) {
		int width = 0, longs = 0;
		char pad = ' ';
		const char *s;

		if (*f != '%' || !f[1]) {
			put(&t, *f);
			continue;
		}
		f++;
		if (*f == '#')
			f++;
		if (*f == '0')
			pad = *f++;
		while (*f >= '0' && *f <= '9')
			width = 10 * width + *f++ - '0';
		while (*f == 'l' || *f == 'z')
			longs++, f++;
		switch (*f) {
		case 's':
			for (s = va_arg(a, const char *); *s; s++)
				put(&t, *s);
			break;
		case 'd':
		case 'i': {
			s64 n = longs ? va_arg(a, long) : va_arg(a, int);

			put_number(&t, n, 10, n < 0, width, pad);
			break;
		}
		case 'u':
		case 'x':
		case 'X':
			put_number(&t, longs ? va_arg(a, u64) : va_arg(a, u32), *f == 'u' ? 10 : 16, false,
				   width, pad);
			break;
		case 'p':
			put_number(&t, (u64)va_arg(a, void *), 16, false, width, pad);
			break;
		case 'c':
			put(&t, (char)va_arg(a, int));
			break;
		case '%':
			put(&t, '%');
			break;
		default:
			k_unmodelled("a conversion of printk");
		}
	}
	while (t.at > out && t.at[-1] == '\n')
		t.at--;
	*t.at = 0;
}

void k_log(bool once, const char *format, ...)
{
	char text[TEXT_MAX];
	va_list a;

	va_start(a, format);
	format_text(text, format, a);
	va_end(a);
	k_ask(K_LOG, text, once ? format : NULL);
}

void k_warn(const char *file, int line, const char *format, ...)
{
	char text[TEXT_MAX];
	va_list a;

	va_start(a, format);
	format_text(text, format, a);
	va_end(a);
	k_ask(K_WARN, text, file, line);
}
