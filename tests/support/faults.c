/* Faults for one daemon, preloaded into its Python (and into no other program of its start-up).
 *
 * FAULT_STEPS=FILE    write the name of every step there: whatever changes something outside
 *                     the process, that is a transaction of nf_tables, a file, a socket's name
 * FAULT_OF=NAME       count no other steps than these
 * FAULT_KILL_AT=N     kill -9 in place of step N, counted from 1
 * FAULT_REFUSE=FILE   while FILE is there, the kernel has no memory for a transaction
 * FAULT_CLOCK=FILE    the wall clock is off by as many seconds as FILE says
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define TRACEFS 0x74726163 /* TRACEFS_MAGIC */
#define BATCH_BEGIN 0x10 /* NFNL_MSG_BATCH_BEGIN */

static const char *refuse, *clock_file, *only;
static long kill_at;
static int steps = -1, count, active;

__attribute__((constructor)) static void begin(void)
{
    const char *number = getenv("FAULT_KILL_AT"), *file = getenv("FAULT_STEPS");
    if (strncmp(program_invocation_short_name, "python", 6))
        return;
    active = 1;
    kill_at = number ? atol(number) : 0;
    only = getenv("FAULT_OF");
    refuse = getenv("FAULT_REFUSE");
    clock_file = getenv("FAULT_CLOCK");
    if (file)
        steps = syscall(SYS_openat, AT_FDCWD, file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
}

static void step(const char *what, const char *detail)
{
    char line[512];
    int kept = errno;
    if (!active || (only && strcmp(only, what)))
        return;
    int number = __atomic_add_fetch(&count, 1, __ATOMIC_SEQ_CST);
    int length = snprintf(line, sizeof(line), "%d %s %s\n", number, what, detail);
    if (steps >= 0)
        syscall(SYS_write, steps, line, length);
    if (number == kill_at)
        syscall(SYS_kill, getpid(), SIGKILL);
    errno = kept;
}

static int is_transaction(int fd, const void *data, size_t length)
{
    int domain = 0;
    socklen_t size = sizeof(domain);
    if (length < sizeof(struct nlmsghdr) || ((const struct nlmsghdr *)data)->nlmsg_type != BATCH_BEGIN)
        return 0;
    return !getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) && domain == AF_NETLINK;
}

/* -1: refused */
static int transaction(int fd, const void *data, size_t length)
{
    if (!active || !is_transaction(fd, data, length))
        return 0;
    step("transaction", "");
    if (refuse && !access(refuse, F_OK)) {
        errno = ENOMEM;
        return -1;
    }
    return 0;
}

ssize_t sendto(int fd, const void *data, size_t length, int flags, const struct sockaddr *to, socklen_t size)
{
    return transaction(fd, data, length) ? -1 : REAL(sendto)(fd, data, length, flags, to, size);
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
    const struct iovec *first = message->msg_iov;
    if (message->msg_iovlen && transaction(fd, first->iov_base, first->iov_len))
        return -1;
    return REAL(sendmsg)(fd, message, flags);
}

int bind(int fd, const struct sockaddr *address, socklen_t size)
{
    if (address->sa_family == AF_UNIX)
        step("bind", ((const struct sockaddr_un *)address)->sun_path);
    return REAL(bind)(fd, address, size);
}

int rename(const char *from, const char *to)
{
    step("rename", to);
    return REAL(rename)(from, to);
}

int unlink(const char *path)
{
    step("unlink", path);
    return REAL(unlink)(path);
}

int mkdir(const char *path, mode_t mode)
{
    step("mkdir", path);
    return REAL(mkdir)(path, mode);
}

int rmdir(const char *path)
{
    step("rmdir", path);
    return REAL(rmdir)(path);
}

ssize_t write(int fd, const void *data, size_t length)
{
    struct stat found;
    struct statfs where;
    if (active && fd > 2 && !fstat(fd, &found) && S_ISREG(found.st_mode) && !fstatfs(fd, &where) &&
        where.f_type != TRACEFS)
        step("write", "");
    return REAL(write)(fd, data, length);
}

int open64(const char *path, int flags, ...)
{
    va_list rest;
    va_start(rest, flags);
    mode_t mode = flags & O_CREAT ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    if (flags & (O_CREAT | O_TRUNC) && strncmp(path, "/sys/", 5))
        step("open", path);
    return REAL(open64)(path, flags, mode);
}

int open(const char *path, int flags, ...)
{
    va_list rest;
    va_start(rest, flags);
    mode_t mode = flags & O_CREAT ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    return open64(path, flags, mode);
}

int clock_gettime(clockid_t which, struct timespec *now)
{
    char text[32] = "";
    int done = REAL(clock_gettime)(which, now);
    if (active && clock_file && which == CLOCK_REALTIME) {
        int file = syscall(SYS_openat, AT_FDCWD, clock_file, O_RDONLY | O_CLOEXEC);
        if (file >= 0 && syscall(SYS_read, file, text, sizeof(text) - 1) > 0)
            now->tv_sec += atol(text);
        if (file >= 0)
            syscall(SYS_close, file);
    }
    return done;
}
