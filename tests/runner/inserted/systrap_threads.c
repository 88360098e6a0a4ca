/* 2,000 threads one after the other, and 300 at once: each has a record of its own, and gives it
 * back. */
#include <pthread.h>
#include <stdio.h>

static pthread_barrier_t all;

static void *quick(void *value)
{
    return value;
}

static void *waiting(void *value)
{
    pthread_barrier_wait(&all);
    return value;
}

int main(void)
{
    static pthread_t threads[300];
    long joined = 0;
    void *value;
    for (int i = 0; i < 2000; i++) {
        if (pthread_create(threads, 0, quick, (void *)1))
            return 1;
        pthread_join(threads[0], &value);
        joined += (long)value;
    }
    printf("%ld joined\n", joined);
    pthread_barrier_init(&all, 0, 300);
    for (int i = 0; i < 300; i++)
        if (pthread_create(threads + i, 0, waiting, (void *)1))
            return 1;
    for (int i = 0; i < 300; i++) {
        pthread_join(threads[i], &value);
        joined += (long)value;
    }
    printf("%ld joined\n", joined);
    return 0;
}
