/* Times of a benchmark program: samples in microseconds, of which median and best are printed. */
#ifndef TIMING_H
#define TIMING_H

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e6 + t.tv_nsec / 1e3;
}

__attribute__((unused)) static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

__attribute__((unused)) static void show_times(const char *name, double *took, int count)
{
    qsort(took, count, sizeof(*took), by_value);
    printf("%s %.4f\n", name, took[count / 2]);
    printf("%s_best %.4f\n", name, took[0]);
}

#endif
