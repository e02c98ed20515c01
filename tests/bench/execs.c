/* Starts a program again and again: execs PROGRAM PER_SECOND SECONDS (0 a second: no pause).
 *
 * Prints "COUNT NANOSECONDS".
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static long long now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void sleep_until(long long due)
{
    struct timespec t = {due / 1000000000LL, due % 1000000000LL};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
}

static void run(char *program)
{
    char *argv[] = {program, NULL}, *nothing[] = {NULL};
    pid_t pid = vfork();
    if (pid == 0) {
        execve(program, argv, nothing);
        _exit(127);
    }
    waitpid(pid, NULL, 0);
}

int main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    long per_second = atol(argv[2]), count = 0;
    long long begun = now(), end = begun + atof(argv[3]) * 1e9;
    for (; now() < end; count++) {
        run(argv[1]);
        if (per_second)
            sleep_until(begun + (count + 1) * 1000000000LL / per_second);
    }
    printf("%ld %lld\n", count, now() - begun);
    return 0;
}
