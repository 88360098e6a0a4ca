/*
 * A host thread that enters one TCS, by EENTER and ERESUME from the same place of its stack, when
 * it is told to; the program goes on meanwhile.
 */
#ifndef HAND_H
#define HAND_H

#include <pthread.h>
#include <semaphore.h>

#include "host.h"

struct hand {
    struct sgx_enclave_run run;
    struct call call;
    unsigned leaf;
    sem_t todo, done;
    pthread_t thread;
};

static void *hand_work(void *argument)
{
    struct hand *hand = argument;

    for (;;) {
        while (sem_wait(&hand->todo))
            ;
        go(&hand->run, hand->leaf, &hand->call);
        sem_post(&hand->done);
    }
    return NULL;
}

static inline void hand_start(struct hand *hand, uint64_t tcs)
{
    hand->run.tcs = tcs;
    DO(sem_init(&hand->todo, 0, 0));
    DO(sem_init(&hand->done, 0, 0));
    SAME(pthread_create(&hand->thread, NULL, hand_work, hand), 0);
}

/* Sends it in; `call` is for EENTER. */
static inline void hand_enter(struct hand *hand, uint64_t op, uint64_t a, uint64_t b)
{
    hand->call = (struct call){op, a, b, 0, 0};
    hand->leaf = EENTER;
    DO(sem_post(&hand->todo));
}

static inline void hand_resume(struct hand *hand)
{
    hand->leaf = ERESUME;
    DO(sem_post(&hand->todo));
}

/* Until it has come out, however. */
static inline void hand_wait(struct hand *hand)
{
    while (sem_wait(&hand->done))
        ;
}

#endif
