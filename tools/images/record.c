/* Records what a server does to its data directory and hands to its clients, in one order: preloaded, built by `run`.
 *
 *     cc -shared -fPIC -O2 -o record.so record.c
 *     LD_PRELOAD=record.so IMAGES_TRACE=file IMAGES_ROOT=directory [IMAGES_SKIP=name] [IMAGES_SYNC=…] … server
 *
 * What the order means. One lock is held over a system call and its record, so that records of writes and of socket
 * calls stand in the order of the calls themselves: no frame can be sent before a sync and be recorded after it. A sync
 * takes long and would stop the sockets, so it has two records: one before the call, one after it succeeded. What was
 * written before the first is on the disk after the second; what was written between them is not promised to be. A
 * thread goes on only after the second record, so that whatever it causes stands behind it.
 *
 * A kill has its place in the order too, if whoever kills holds an exclusive flock(2) on the trace.
 *
 * Everything under IMAGES_ROOT is followed, by file descriptor; a file called IMAGES_SKIP is left out. Sockets are those
 * that came from accept. Calls are made by syscall(2), so that no real function needs to be looked for.
 *
 * IMAGES_SYNC=lose     every sync says that it succeeded, and has not happened: nothing is recorded.
 * IMAGES_SYNC=start    the same until the first connection is accepted: a disk that lies while the server starts.
 * IMAGES_SYNC_US=n     a sync takes so many microseconds more, so that there is time to be wrong in.
 */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

/* trace.py has the same numbers. */
enum kind {
    START = 1, OPEN, CLOSE, DUP, WRITE, TRUNCATE, SYNC_BEGIN, SYNC_END, UNLINK, RENAME, MKDIR, MAP, ACCEPT, SEND, FAULT,
};

struct head {
    uint32_t length; /* of what follows */
    uint16_t kind;
    uint16_t flags;
    int32_t fd;
    uint32_t number;
    int64_t offset;
};

enum { DESCRIPTORS = 1 << 16 };
enum { UNKNOWN = 0, FILE_ = 1, SOCKET = 2 };

static unsigned char known[DESCRIPTORS];
static pthread_mutex_t order = PTHREAD_MUTEX_INITIALIZER;
static int trace = -1;
static char root[4096];
static size_t root_length;
static char skip[256];
static int lose, lose_at_start, accepted;
static long sync_us;
static uint32_t syncs;

static void note(enum kind kind, int fd, int flags, uint32_t number, int64_t offset, const struct iovec *parts, int count)
{
    struct iovec all[66];
    struct head head = { 0, (uint16_t)kind, (uint16_t)flags, fd, number, offset };
    int before = errno;
    size_t total = sizeof head;

    for (int i = 0; i < count; i++) {
        all[i + 1] = parts[i];
        head.length += (uint32_t)parts[i].iov_len;
        total += parts[i].iov_len;
    }
    all[0] = (struct iovec){ &head, sizeof head };
    if (syscall(SYS_writev, trace, all, count + 1) != (long)total) {
        static const char words[] = "record.c: the trace cannot be written\n";
        (void)!syscall(SYS_write, 2, words, sizeof words - 1);
        _exit(70);
    }
    errno = before;
}

static void note_path(enum kind kind, int fd, int flags, const char *path)
{
    struct iovec part = { (void *)path, strlen(path) };
    note(kind, fd, flags, 0, 0, &part, 1);
}

__attribute__((constructor)) static void begin(void)
{
    const char *to = getenv("IMAGES_TRACE"), *under = getenv("IMAGES_ROOT");
    const char *leave = getenv("IMAGES_SKIP"), *sync = getenv("IMAGES_SYNC"), *us = getenv("IMAGES_SYNC_US");

    if (!to || !under)
        return;
    snprintf(root, sizeof root, "%s", under);
    root_length = strlen(root);
    snprintf(skip, sizeof skip, "%s", leave ? leave : "");
    lose = sync && !strcmp(sync, "lose");
    lose_at_start = sync && !strcmp(sync, "start");
    sync_us = us ? atol(us) : 0;
    trace = (int)syscall(SYS_openat, AT_FDCWD, to, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (trace < 0) {
        fprintf(stderr, "record.c: %s: %s\n", to, strerror(errno));
        _exit(70);
    }
    note(START, -1, 0, (uint32_t)getpid(), 0, NULL, 0);
}

static int is_ours(const char *path)
{
    const char *name;

    if (trace < 0 || strncmp(path, root, root_length) || (path[root_length] && path[root_length] != '/'))
        return 0;
    name = strrchr(path, '/');
    return !(name && *skip && !strcmp(name + 1, skip));
}

/* No other call may come between a call and its record, and no kill either: whoever kills this process locks the trace
 * first. A trace without the last call would prove nothing. Threads of a process share its lock of a file, so they have
 * one more among them. */
static void hold(void)
{
    pthread_mutex_lock(&order);
    if (trace >= 0)
        while (syscall(SYS_flock, trace, LOCK_EX) && errno == EINTR)
            ;
}

static void let_go(void)
{
    int before = errno;

    if (trace >= 0)
        syscall(SYS_flock, trace, LOCK_UN);
    pthread_mutex_unlock(&order);
    errno = before;
}

static int what(int fd)
{
    return trace >= 0 && fd >= 0 && fd < DESCRIPTORS ? known[fd] : UNKNOWN;
}

static void follow(int fd, int as)
{
    if (fd >= 0 && fd < DESCRIPTORS)
        known[fd] = (unsigned char)as;
}

/* --- names --- */

static int open_at(const char *path, int flags, mode_t mode)
{
    int fd, ours = is_ours(path);

    if (!ours)
        return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
    hold();
    fd = (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
    if (fd >= 0) {
        follow(fd, FILE_);
        note_path(OPEN, fd, (flags & O_CREAT ? 1 : 0) | (flags & O_TRUNC ? 2 : 0), path);
    }
    let_go();
    return fd;
}

#define OPENED(path, flags)                                            \
    mode_t mode = 0;                                                   \
    if (((flags) & O_CREAT) || ((flags) & O_TMPFILE) == O_TMPFILE) {   \
        va_list rest;                                                  \
        va_start(rest, flags);                                         \
        mode = va_arg(rest, mode_t);                                   \
        va_end(rest);                                                  \
    }                                                                  \
    return open_at(path, flags, mode)

int open(const char *path, int flags, ...) { OPENED(path, flags); }
int open64(const char *path, int flags, ...) { OPENED(path, flags); }

int mkdir(const char *path, mode_t mode)
{
    int done;

    hold();
    done = (int)syscall(SYS_mkdirat, AT_FDCWD, path, mode);
    if (!done && is_ours(path))
        note_path(MKDIR, -1, 0, path);
    let_go();
    return done;
}

int unlink(const char *path)
{
    int done;

    hold();
    done = (int)syscall(SYS_unlinkat, AT_FDCWD, path, 0);
    if (!done && is_ours(path))
        note_path(UNLINK, -1, 0, path);
    let_go();
    return done;
}

int rename(const char *from, const char *to)
{
    int done;

    hold();
    done = (int)syscall(SYS_renameat, AT_FDCWD, from, AT_FDCWD, to);
    if (!done && (is_ours(from) || is_ours(to))) {
        /* With the zero byte between them. */
        struct iovec parts[] = { { (void *)from, strlen(from) + 1 }, { (void *)to, strlen(to) } };
        note(RENAME, -1, 0, 0, 0, parts, 2);
    }
    let_go();
    return done;
}

/* --- descriptors --- */

int close(int fd)
{
    int done, as = what(fd);

    if (!as)
        return (int)syscall(SYS_close, fd);
    hold();
    follow(fd, UNKNOWN);
    note(CLOSE, fd, 0, 0, 0, NULL, 0);
    done = (int)syscall(SYS_close, fd);
    let_go();
    return done;
}

static int duplicated(int from, int to)
{
    if (to >= 0) {
        follow(to, what(from));
        note(DUP, from, 0, (uint32_t)to, 0, NULL, 0);
    }
    return to;
}

int dup(int fd)
{
    int to;

    if (!what(fd))
        return (int)syscall(SYS_dup, fd);
    hold();
    to = duplicated(fd, (int)syscall(SYS_dup, fd));
    let_go();
    return to;
}

static int control(int fd, int command, void *argument)
{
    int done;

    if ((command != F_DUPFD && command != F_DUPFD_CLOEXEC) || !what(fd))
        return (int)syscall(SYS_fcntl, fd, command, argument);
    hold();
    done = duplicated(fd, (int)syscall(SYS_fcntl, fd, command, argument));
    let_go();
    return done;
}

#define CONTROLLED(fd, command)              \
    va_list rest;                            \
    void *argument;                          \
    va_start(rest, command);                 \
    argument = va_arg(rest, void *);         \
    va_end(rest);                            \
    return control(fd, command, argument)

int fcntl(int fd, int command, ...) { CONTROLLED(fd, command); }
int fcntl64(int fd, int command, ...) { CONTROLLED(fd, command); }

int accept4(int fd, struct sockaddr *address, socklen_t *length, int flags)
{
    struct sockaddr_storage peer;
    socklen_t room = sizeof peer;
    int to;

    if (trace < 0)
        return (int)syscall(SYS_accept4, fd, address, length, flags);
    hold();
    to = (int)syscall(SYS_accept4, fd, address, length, flags);
    if (to >= 0 && !syscall(SYS_getpeername, to, &peer, &room) && peer.ss_family == AF_INET) {
        accepted = 1;
        follow(to, SOCKET);
        note(ACCEPT, to, 0, ntohs(((struct sockaddr_in *)&peer)->sin_port), 0, NULL, 0);
    }
    let_go();
    return to;
}

/* --- bytes --- */

/* A file's own place in it, for write(2). */
static off_t place(int fd)
{
    struct stat status;

    if (syscall(SYS_fcntl, fd, F_GETFL) & O_APPEND)
        return fstat(fd, &status) ? 0 : status.st_size;
    return (off_t)syscall(SYS_lseek, fd, 0, SEEK_CUR);
}

/* The parts that make up the first `taken` bytes. */
static int cut(struct iovec *into, const struct iovec *parts, int count, size_t taken)
{
    int used = 0;

    for (; used < count && used < 64 && taken; used++) {
        into[used] = parts[used];
        if (into[used].iov_len > taken)
            into[used].iov_len = taken;
        taken -= into[used].iov_len;
    }
    if (taken) {
        static const char words[] = "record.c: more parts than a record has room for\n";
        (void)!syscall(SYS_write, 2, words, sizeof words - 1);
        _exit(70);
    }
    return used;
}

static void took(int fd, int as, off_t offset, const struct iovec *parts, int count, ssize_t taken)
{
    struct iovec cuts[64];

    if (taken > 0)
        note(as == SOCKET ? SEND : WRITE, fd, 0, 0, offset, cuts, cut(cuts, parts, count, (size_t)taken));
}

ssize_t writev(int fd, const struct iovec *parts, int count)
{
    ssize_t taken;
    off_t offset;
    int as = what(fd);

    if (!as)
        return syscall(SYS_writev, fd, parts, count);
    hold();
    offset = as == FILE_ ? place(fd) : 0;
    /* A call may take fewer than it was given: those a record has room for. */
    taken = syscall(SYS_writev, fd, parts, count > 64 ? 64 : count);
    took(fd, as, offset, parts, count, taken);
    let_go();
    return taken;
}

ssize_t write(int fd, const void *bytes, size_t length)
{
    struct iovec part = { (void *)bytes, length };

    return what(fd) ? writev(fd, &part, 1) : syscall(SYS_write, fd, bytes, length);
}

ssize_t send(int fd, const void *bytes, size_t length, int flags)
{
    struct iovec part = { (void *)bytes, length };
    ssize_t taken;
    int as = what(fd);

    if (!as)
        return syscall(SYS_sendto, fd, bytes, length, flags, NULL, 0);
    hold();
    taken = syscall(SYS_sendto, fd, bytes, length, flags, NULL, 0);
    took(fd, as, 0, &part, 1, taken);
    let_go();
    return taken;
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
    ssize_t taken;
    int as = what(fd);

    if (!as)
        return syscall(SYS_sendmsg, fd, message, flags);
    hold();
    taken = syscall(SYS_sendmsg, fd, message, flags);
    took(fd, as, 0, message->msg_iov, (int)message->msg_iovlen, taken);
    let_go();
    return taken;
}

static ssize_t write_at(int fd, const void *bytes, size_t length, off_t offset)
{
    struct iovec part = { (void *)bytes, length };
    ssize_t taken;

    if (!what(fd))
        return syscall(SYS_pwrite64, fd, bytes, length, offset);
    hold();
    taken = syscall(SYS_pwrite64, fd, bytes, length, offset);
    took(fd, FILE_, offset, &part, 1, taken);
    let_go();
    return taken;
}

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t offset) { return write_at(fd, bytes, length, offset); }
ssize_t pwrite64(int fd, const void *bytes, size_t length, off_t offset) { return write_at(fd, bytes, length, offset); }

static int resize(int fd, off_t length)
{
    int done;

    if (!what(fd))
        return (int)syscall(SYS_ftruncate, fd, length);
    hold();
    done = (int)syscall(SYS_ftruncate, fd, length);
    if (!done)
        note(TRUNCATE, fd, 0, 0, length, NULL, 0);
    let_go();
    return done;
}

int ftruncate(int fd, off_t length) { return resize(fd, length); }
int ftruncate64(int fd, off_t length) { return resize(fd, length); }

/* Stores into a mapped file pass by unseen; the replayer accepts that of the shared-memory file alone. */
static void *map(void *at, size_t length, int allow, int flags, int fd, off_t offset)
{
    if (what(fd) == FILE_ && (flags & MAP_SHARED) && (allow & PROT_WRITE)) {
        hold();
        note(MAP, fd, 0, 0, 0, NULL, 0);
        let_go();
    }
    return (void *)syscall(SYS_mmap, at, length, allow, flags, fd, offset);
}

void *mmap(void *at, size_t length, int allow, int flags, int fd, off_t offset)
{
    return map(at, length, allow, flags, fd, offset);
}

void *mmap64(void *at, size_t length, int allow, int flags, int fd, off_t offset)
{
    return map(at, length, allow, flags, fd, offset);
}

/* What the replayer does not know how to lose: it says so and gives up, instead of knowing less than the disk. */
int fallocate(int fd, int mode, off_t offset, off_t length)
{
    if (what(fd) == FILE_) {
        hold();
        note(FAULT, fd, 0, 0, 0, NULL, 0);
        let_go();
    }
    return (int)syscall(SYS_fallocate, fd, mode, offset, length);
}

/* --- syncs --- */

static int sync_by(long call, int fd)
{
    uint32_t number;
    int done;

    if (what(fd) != FILE_)
        return (int)syscall(call, fd);
    hold();
    if (lose || (lose_at_start && !accepted)) {
        let_go();
        return 0;
    }
    number = ++syncs;
    note(SYNC_BEGIN, fd, 0, number, 0, NULL, 0);
    let_go();
    if (sync_us) {
        struct timespec wait = { sync_us / 1000000, sync_us % 1000000 * 1000 };
        syscall(SYS_nanosleep, &wait, NULL);
    }
    done = (int)syscall(call, fd);
    if (!done) {
        hold();
        note(SYNC_END, fd, 0, number, 0, NULL, 0);
        let_go();
    }
    return done;
}

int fsync(int fd) { return sync_by(SYS_fsync, fd); }
int fdatasync(int fd) { return sync_by(SYS_fdatasync, fd); }
