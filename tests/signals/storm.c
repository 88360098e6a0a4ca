/*
 * A storm of signals over threads that are inside an enclave: timers of 1 kHz, signals of real time
 * with numbers from other processes, standard ones to threads and the process, stops, children
 * that are killed while they are inside. None of the numbered ones may be lost or doubled, and the
 * enclave has to have counted every call.
 *
 *   storm SGXS SIG            prints its pid; reads how many each sender outside has sent
 *   storm --send PID N SECONDS SEED  a sender outside: number N; prints how many it has sent
 */
#include "cases.h"

#include <dirent.h>
#include <poll.h>
#include <stdatomic.h>
#include <sys/time.h>

#define SENDERS 3
#define CALLERS 2
#define ADDED 10
#define LIMIT (1UL << 26) /* numbers of one sender */
#define QUIET_S 60        /* nothing arrived for so long: lost */
#define FIRST_SIGNAL 40

static _Atomic uint64_t *seen[SENDERS];
static _Atomic uint64_t received[SENDERS], doubled, wrong, inside, profiled, others;
static uint64_t calls[CALLERS], bad_results;
static volatile uint32_t stop;
static volatile struct {
    uint64_t sent, inside;
    uint32_t stop;
} *shared;

static const int standard[] = {SIGUSR1, SIGUSR2, SIGTERM, SIGHUP,  SIGWINCH, SIGSEGV,
                               SIGBUS,  SIGILL,  SIGFPE,  SIGTRAP, SIGSYS};

static bool is_tcs(uint64_t address)
{
    for (int i = 0; i < the_enclave.threads; i++)
        if (the_enclave.tcs[i] == address)
            return true;
    return false;
}

/* What was interrupted, if it was an enclave: the state that AEX leaves. */
static void look(void *context)
{
    greg_t *r = registers(context);

    if (r[REG_RAX] != ERESUME || !is_tcs(r[REG_RBX]) || r[REG_RCX] != r[REG_RIP])
        return;
    inside++;
    if (r[REG_RDX] | r[REG_RSI] | r[REG_RDI] | r[REG_R8] | r[REG_R9] | r[REG_R10] | r[REG_R15])
        wrong++;
}

static void numbered(int number, siginfo_t *info, void *context)
{
    uint64_t value = (uint64_t)info->si_value.sival_ptr, sender = value >> 56;
    uint64_t sequence = value & ~(0xffUL << 56), bit = 1UL << sequence % 64;
    int kept = errno;

    (void)number;
    look(context);
    if (info->si_code != SI_QUEUE || sender >= SENDERS || sequence >= LIMIT) {
        wrong++;
        return;
    }
    if (atomic_fetch_or(&seen[sender][sequence / 64], bit) & bit)
        doubled++;
    received[sender]++;
    errno = kept;
}

static void counted_signal(int number, siginfo_t *info, void *context)
{
    look(context);
    if (number == SIGPROF) {
        profiled++;
    } else {
        others++;
        /* An exception of the program itself, and it has none. */
        if (info->si_code > 0) {
            say("WRONG: signal %d code %d at %p", number, info->si_code, info->si_addr);
            _exit(3);
        }
    }
}

static void handlers(void)
{
    for (int i = 0; i < SENDERS; i++)
        on(FIRST_SIGNAL + i, numbered, SA_RESTART | (i & 1 ? SA_ONSTACK : 0));
    for (size_t i = 0; i < COUNT(standard); i++)
        on(standard[i], counted_signal, SA_RESTART | (i & 1 ? SA_ONSTACK : 0));
    on(SIGPROF, counted_signal, SA_RESTART);
}

static void *calls_enclave(void *argument)
{
    long index = (long)argument;
    struct sgx_enclave_run run = {.tcs = the_enclave.tcs[index]};
    struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGPROF};
    struct itimerspec every = {{0, 1000000}, {0, 1000000}};
    stack_t stack = {malloc(65536), 0, 65536};
    timer_t timer;

    sigaltstack(&stack, NULL);
    event._sigev_un._tid = tid_now();
    DO(timer_create(CLOCK_MONOTONIC, &event, &timer));
    DO(timer_settime(timer, 0, &every, NULL));
    while (!stop) {
        ask(&run, OP_ATOMIC, ADDED, 0, 0);
        calls[index]++;
        if (ask(&run, OP_COUNT, 2000, 0, 0))
            __atomic_fetch_add(&bad_results, 1, __ATOMIC_RELAXED);
    }
    DO(timer_delete(timer));
    return NULL;
}

static bool sent_one(pid_t pid, uint64_t sender, uint64_t sequence)
{
    union sigval value = {.sival_ptr = (void *)(sender << 56 | sequence)};

    while (sigqueue(pid, FIRST_SIGNAL + sender, value)) {
        if (errno != EAGAIN)
            return false;
        nap(1000);
    }
    return true;
}

static pid_t sender_of_the_run(void)
{
    pid_t pid = fork();

    if (!pid) {
        pid_t parent = getppid();

        prctl(PR_SET_PDEATHSIG, SIGKILL);
        while (!shared->stop && shared->sent < LIMIT && sent_one(parent, 2, shared->sent)) {
            shared->sent++;
            nap(700);
        }
        _exit(0);
    }
    return pid;
}

/* A child that is killed while it is inside an enclave of its own. */
static void victim(unsigned *seed)
{
    int status = 0;
    pid_t pid;

    shared->inside = 0;
    pid = fork();
    if (!pid) {
        struct sgx_enclave_run run = {0};

        prctl(PR_SET_PDEATHSIG, SIGKILL);
        enter_before();
        run.tcs = the_enclave.tcs[0];
        shared->inside = 1;
        for (;;)
            ask(&run, OP_COUNT, 2000, 0, 0);
    }
    while (!shared->inside)
        nap(1000);
    nap(rand_r(seed) % 20000);
    kill(pid, SIGKILL);
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return;
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL) {
        wrong++;
        ended("WRONG: a child that was killed", status);
    }
}

static uint64_t all_received(void)
{
    return received[0] + received[1] + received[2];
}

static void until_all(const uint64_t *sent)
{
    int64_t last = seconds_now();
    uint64_t got = 0;

    while (seconds_now() < last + QUIET_S &&
           (received[0] < sent[0] || received[1] < sent[1] || received[2] < sent[2])) {
        nap(5000);
        if (all_received() != got) {
            got = all_received();
            last = seconds_now();
        }
    }
}

static bool told(uint64_t *sent)
{
    struct pollfd input = {0, POLLIN, 0};
    char line[100];
    ssize_t length;

    if (poll(&input, 1, 0) <= 0)
        return false;
    length = read(0, line, sizeof(line) - 1);
    if (length <= 0)
        _exit(4);
    line[length] = 0;
    return sscanf(line, "%lu %lu", &sent[0], &sent[1]) == 2;
}

static int judged(const uint64_t *sent, unsigned victims)
{
    struct sgx_enclave_run run = {.tcs = the_enclave.tcs[0]};
    uint64_t total = ask(&run, OP_TOTAL, 0, 0, 0), called = calls[0] + calls[1];
    bool right = total == ADDED * called && !doubled && !wrong && !bad_results;

    for (int i = 0; i < SENDERS; i++) {
        say("sender %d: %lu of %lu", i, (long)received[i], (long)sent[i]);
        right &= received[i] == sent[i];
    }
    say("enclave counted %lu of %lu in %lu calls, %lu with wrong registers", (long)total,
        (long)(ADDED * called), (long)called, (long)bad_results);
    say("%lu doubled, %lu wrong, %lu found an enclave, %lu of timers, %lu others, %u children killed",
        (long)doubled, (long)wrong, (long)inside, (long)profiled, (long)others, victims);
    say("%s", right && inside && profiled ? "right" : "WRONG");
    return !(right && inside && profiled);
}

static int storm(char **argv)
{
    struct itimerval every = {{0, 1000}, {0, 1000}}, never = {{0, 0}, {0, 0}};
    uint64_t sent[SENDERS] = {0};
    pthread_t threads[CALLERS];
    unsigned seed = 1, victims = 0;
    int status;
    pid_t sender;

    case_name = "storm";
    program_argv = argv;
    enclave_files[0] = argv[1];
    enclave_files[1] = argv[2];
    shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    for (int i = 0; i < SENDERS; i++)
        seen[i] = mmap(NULL, LIMIT / 8, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    enter_before();
    handlers();
    for (long i = 0; i < CALLERS; i++)
        SAME(pthread_create(&threads[i], NULL, calls_enclave, (void *)i), 0);
    DO(setitimer(ITIMER_PROF, &every, NULL));
    sender = sender_of_the_run();
    say("pid %d", getpid());
    while (!told(sent)) {
        victim(&seed);
        victims++;
    }
    shared->stop = 1;
    while (waitpid(sender, &status, 0) < 0 && errno == EINTR)
        ;
    sent[2] = shared->sent;
    until_all(sent);
    stop = 1;
    for (int i = 0; i < CALLERS; i++)
        pthread_join(threads[i], NULL);
    DO(setitimer(ITIMER_PROF, &never, NULL));
    return judged(sent, victims);
}

/* A standard signal to the process or to one of its threads. */
static void disturb(pid_t pid, unsigned *seed)
{
    int number = standard[rand_r(seed) % COUNT(standard)], tids[64], n = 0;
    struct dirent *entry;
    char path[32];
    DIR *tasks;

    if (rand_r(seed) % 2) {
        kill(pid, number);
        return;
    }
    snprintf(path, sizeof(path), "/proc/%d/task", pid);
    tasks = opendir(path);
    while (tasks && (entry = readdir(tasks)) && n < 64)
        if (atoi(entry->d_name))
            tids[n++] = atoi(entry->d_name);
    if (tasks)
        closedir(tasks);
    if (n)
        syscall(SYS_tgkill, pid, tids[rand_r(seed) % n], number);
}

static int sends(char **argv)
{
    pid_t pid = atoi(argv[2]);
    uint64_t sender = atoi(argv[3]), sequence = 0;
    int64_t last = seconds_now() + atoi(argv[4]);
    unsigned seed = atoi(argv[5]);

    while (seconds_now() < last && sequence < LIMIT && sent_one(pid, sender, sequence)) {
        sequence++;
        nap(rand_r(&seed) % 1500);
        if (rand_r(&seed) % 8 == 0)
            disturb(pid, &seed);
        if (sender == 0 && rand_r(&seed) % 256 == 0) {
            kill(pid, SIGSTOP);
            nap(rand_r(&seed) % 20000);
            kill(pid, SIGCONT);
        }
    }
    printf("%lu\n", (long)sequence);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 6 && !strcmp(argv[1], "--send"))
        return sends(argv);
    return storm(argv);
}
