/* Both ends of a connection in one process: measures the packet path alone.
 *
 * The sockets belong to two network namespaces, the loop to one thread. No second process waits
 * for a core, so two servers differ only in the rules that their packets pass.
 * Each run is short; the bench interleaves servers and compares within a round.
 *
 * Arguments: the clients' network namespace.
 * stdin:  add NAMESPACE ADDRESS PORT      a server; numbered from 0
 *         connect NUMBER MILLISECONDS     connect, accept, reset, again: prints "COUNT NANOSECONDS"
 *         bulk NUMBER MILLISECONDS        one connection's bytes:        prints "BYTES NANOSECONDS"
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define SERVERS 64
#define CHUNK (256 << 10)

struct server { int fd; struct sockaddr_in at; };

static struct server servers[SERVERS];
static int count;
static char chunk[CHUNK];

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static long long now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void enter(const char *namespace)
{
    int fd = open(namespace, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || setns(fd, CLONE_NEWNET))
        fail(namespace);
    close(fd);
}

static void add(const char *namespace, const char *address, int port)
{
    struct linger reset = {1, 0};
    struct server *new = &servers[count++];
    new->at.sin_family = AF_INET;
    new->at.sin_port = htons(port);
    inet_pton(AF_INET, address, &new->at.sin_addr);
    enter(namespace);
    new->fd = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(new->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    if (bind(new->fd, (struct sockaddr *)&new->at, sizeof new->at) || listen(new->fd, 128))
        fail("listen");
}

static int dial(const struct server *server)
{
    struct linger reset = {1, 0};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    if (fd < 0 || connect(fd, (const struct sockaddr *)&server->at, sizeof server->at))
        fail("connect");
    return fd;
}

static long long connects(const struct server *server, long long end)
{
    long long done = 0;
    for (; now() < end; done++) {
        int near = dial(server), far = accept(server->fd, NULL, NULL);
        if (far < 0)
            fail("accept");
        close(near);
        close(far);
    }
    return done;
}

static long long bytes(const struct server *server, long long end)
{
    long long done = 0;
    int near = dial(server), far = accept(server->fd, NULL, NULL);
    fcntl(near, F_SETFL, O_NONBLOCK);
    fcntl(far, F_SETFL, O_NONBLOCK);
    while (now() < end) {
        ssize_t sent = send(near, chunk, CHUNK, 0);
        ssize_t got = recv(far, chunk, CHUNK, MSG_TRUNC); /* counted, not copied out */
        if (got > 0)
            done += got;
        else if (sent <= 0) {
            struct pollfd both[] = {{near, POLLOUT, 0}, {far, POLLIN, 0}};
            poll(both, 2, 10);
        }
    }
    close(near);
    close(far);
    return done;
}

int main(int argc, char **argv)
{
    char line[256], namespace[128], address[64], verb[16];
    int port, number, milliseconds;
    if (argc != 2)
        return 2;
    setvbuf(stdout, NULL, _IOLBF, 0);
    puts("ready");
    while (fgets(line, sizeof line, stdin)) {
        if (sscanf(line, "add %127s %63s %d", namespace, address, &port) == 3 && count < SERVERS) {
            add(namespace, address, port);
            enter(argv[1]);
            puts("done");
        } else if (sscanf(line, "%15s %d %d", verb, &number, &milliseconds) == 3 && number < count) {
            long long begun = now(), end = begun + milliseconds * 1000000LL;
            long long done = *verb == 'c' ? connects(&servers[number], end)
                                          : bytes(&servers[number], end);
            printf("%lld %lld\n", done, now() - begun);
        }
    }
    return 0;
}
