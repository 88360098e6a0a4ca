/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only */
/* Messages and assertions. */
#ifndef SOFTSGX_PRINT_H
#define SOFTSGX_PRINT_H
#include "types.h"

void k_log(bool once, const char *format, ...) __attribute__((format(printf, 2, 3)));
void k_warn(const char *file, int line, const char *format, ...) __attribute__((format(printf, 3, 4)));
void k_bug(const char *file, int line) __attribute__((noreturn));
void k_unmodelled(const char *what) __attribute__((noreturn));

#define pr_fmt(f) f
#define FW_BUG "[Firmware Bug]: "
#define pr_err(f, ...) k_log(false, pr_fmt(f), ##__VA_ARGS__)
#define pr_warn(f, ...) k_log(false, pr_fmt(f), ##__VA_ARGS__)
#define pr_info(f, ...) k_log(false, pr_fmt(f), ##__VA_ARGS__)
#define pr_debug(f, ...) do { if (0) k_log(false, pr_fmt(f), ##__VA_ARGS__); } while (0)
#define pr_err_once(f, ...) k_log(true, pr_fmt(f), ##__VA_ARGS__)
#define pr_warn_once(f, ...) k_log(true, pr_fmt(f), ##__VA_ARGS__)
#define pr_info_once(f, ...) k_log(true, pr_fmt(f), ##__VA_ARGS__)
#define pr_err_ratelimited pr_err
#define pr_warn_ratelimited pr_warn

/* Also the ones that print once: every occurrence is a finding. */
#define WARN(c, f, ...) \
	({ bool w_ = !!(c); if (unlikely(w_)) k_warn(__FILE__, __LINE__, f, ##__VA_ARGS__); unlikely(w_); })
#define WARN_ON(c) WARN(c, "%s", #c)
#define WARN_ON_ONCE(c) WARN_ON(c)
#define WARN_ONCE(c, f, ...) WARN(c, f, ##__VA_ARGS__)
#define BUG() k_bug(__FILE__, __LINE__)
#define BUG_ON(c) do { if (unlikely(c)) BUG(); } while (0)
#define VM_WARN_ON(c) WARN_ON(c)
#define lockdep_assert_held(l) ((void)WARN(!k_held(l), "lock not held: %s", #l))
#endif
