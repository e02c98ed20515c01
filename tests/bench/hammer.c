/* The untrusted host: opens connections to one port as fast as one core can, and counts the results.
 *
 * Real sockets, not forged packets: the results are handshakes that both kernels finished, and
 * connections that accept() returned to the workload. A dropped SYN causes no delay: a socket is
 * checked and closed after WINDOW others were opened (some ten milliseconds, far less than the
 * first retransmission). So nothing waits, and no epoll is needed. Closing resets, so no TIME_WAIT
 * uses up the source ports.
 *
 * stdin, a line a run:  ADDRESS PORT     stdout:  "on" after the first window of attempts
 *                       (an empty line)           "ATTEMPTS REFUSED ACCEPTED UNANSWERED NANOSECONDS"
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define WINDOW 512

struct tally { long attempts, refused, accepted, unanswered; };

static long long now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static int state_of(int fd)
{
    struct tcp_info info;
    socklen_t length = sizeof info;
    return getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &length) ? TCP_CLOSE : info.tcpi_state;
}

static void settle(int fd, struct tally *tally)
{
    int state = state_of(fd), error = 0;
    socklen_t length = sizeof error;
    getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length);
    if (error == ECONNREFUSED)
        tally->refused++;
    else if (state == TCP_SYN_SENT || error == EHOSTUNREACH || error == ETIMEDOUT)
        tally->unanswered++;
    else
        tally->accepted++; /* established, or reset after it was */
    close(fd);
}

static int attempt(const struct sockaddr_in *door, struct tally *tally)
{
    struct linger reset = {1, 0};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        perror("socket");
        exit(1);
    }
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    if (connect(fd, (const struct sockaddr *)door, sizeof *door) == 0 || errno == EINPROGRESS) {
        tally->attempts++;
        return fd;
    }
    if (errno == ECONNREFUSED) {
        tally->attempts++;
        tally->refused++;
    }
    close(fd); /* no source port left just now: not an attempt */
    return -1;
}

static int asked_to_stop(void)
{
    struct pollfd in = {0, POLLIN, 0};
    return poll(&in, 1, 0) > 0;
}

static void run(const struct sockaddr_in *door)
{
    struct tally tally = {0};
    int window[WINDOW];
    long long begun = now();
    memset(window, -1, sizeof window);
    for (long i = 0;; i++) {
        int *slot = &window[i % WINDOW];
        if (*slot >= 0)
            settle(*slot, &tally);
        *slot = attempt(door, &tally);
        if (i == WINDOW)
            puts("on");
        if (i >= WINDOW && i % 64 == 0 && asked_to_stop())
            break;
    }
    long long took = now() - begun;
    for (int i = 0; i < WINDOW; i++)
        if (window[i] >= 0)
            settle(window[i], &tally);
    printf("%ld %ld %ld %ld %lld\n", tally.attempts, tally.refused, tally.accepted,
           tally.unanswered, took);
}

int main(void)
{
    char line[128], address[64];
    int port;
    setvbuf(stdin, NULL, _IONBF, 0); /* poll must see what stdio has not read */
    setvbuf(stdout, NULL, _IOLBF, 0);
    puts("ready");
    while (fgets(line, sizeof line, stdin)) {
        struct sockaddr_in door = {.sin_family = AF_INET};
        if (sscanf(line, "%63s %d", address, &port) != 2)
            continue;
        door.sin_port = htons(port);
        inet_pton(AF_INET, address, &door.sin_addr);
        run(&door);
    }
    return 0;
}
