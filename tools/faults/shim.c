/* Faults at the edge of the kernel, for tools/faults/run: writes and syncs of files below one directory fail, come short or
 * stall when they are told to, and are counted.
 *
 *     cc -shared -fPIC -O2 -o shim.so shim.c
 *     FAULTS_DIR=/data FAULTS_CONTROL=/control LD_PRELOAD=./shim.so commitcast serve --data /data
 *
 * The control file is `struct control`, mapped by both sides: the test arms a fault in a running process and reads the
 * counts of one that has ended. All calls of the process count, whichever thread makes them, so that the n-th is exact.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum kind { NONE, WRITE, SYNC };
enum action { FAIL, SHORT, STALL };

/* Eight-byte fields in this order; the test packs them as `<11q`. */
struct control {
    int64_t kind;    /* of the calls that the fault is for; NONE: nothing is armed */
    int64_t nth;     /* the fault comes with this one of them, counted from the arming */
    int64_t error;   /* errno of a call that fails */
    int64_t forever; /* it goes on with every later call of its kind until it is disarmed */
    int64_t action;  /* FAIL; SHORT: half is written, and the rest is refused with `error`; STALL: the call waits first */
    int64_t millis;  /* of a stall */
    int64_t writes;  /* calls since the arming, or since the start where nothing was armed */
    int64_t syncs;
    int64_t hits;    /* calls that met the fault */
    int64_t writes_after; /* calls that succeeded behind the first hit, on the database and its log alone */
    int64_t syncs_after;
};

static struct control *control;
static char dir[PATH_MAX];
static size_t dir_length;

__attribute__((constructor)) static void map_control(void) {
    const char *below = getenv("FAULTS_DIR"), *path = getenv("FAULTS_CONTROL");
    int fd = path && below && strlen(below) < sizeof dir ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0) return;
    void *page = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (page == MAP_FAILED) return;
    strcpy(dir, below);
    dir_length = strlen(dir);
    control = page;
}

static int64_t add(int64_t *count) { return __atomic_add_fetch(count, 1, __ATOMIC_SEQ_CST); }
static int64_t get(int64_t *field) { return __atomic_load_n(field, __ATOMIC_SEQ_CST); }

/* What the descriptor is open on, if it lies below the directory. errno stays as it was. */
static int is_ours(int fd, char path[PATH_MAX]) {
    int saved = errno;
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = control ? readlink(link, path, PATH_MAX - 1) : -1;
    errno = saved;
    if (length < 0) return 0;
    path[length] = 0;
    return strncmp(path, dir, dir_length) == 0 && path[dir_length] == '/';
}

static void stall(void) {
    struct timespec left = {control->millis / 1000, control->millis % 1000 * 1000000};
    while (nanosleep(&left, &left) != 0 && errno == EINTR) {}
}

/* Counts a call and says whether it meets the fault. */
static int is_hit(enum kind kind, int64_t *count) {
    int64_t number = add(count);
    if (get(&control->kind) != kind) return 0;
    int64_t nth = get(&control->nth);
    if (number != nth && !(number > nth && get(&control->forever))) return 0;
    add(&control->hits);
    return 1;
}

static void note_success(const char *path, int64_t *count) {
    if (get(&control->hits) > 0 && strstr(path, ".sqlite") && !strstr(path, "-shm")) add(count);
}

/* A write of `length` bytes: how many of them may be written now; -1 with errno for none. */
static ssize_t admit_write(int fd, size_t length, char path[PATH_MAX], int *ours) {
    *ours = is_ours(fd, path);
    if (!*ours || !is_hit(WRITE, &control->writes)) return length;
    switch (get(&control->action)) {
    case STALL:
        stall();
        return length;
    case SHORT:
        /* The rest is asked for next, and fails: a disk that fills in the middle of a write. */
        if (length > 1 && get(&control->hits) == 1) {
            __atomic_store_n(&control->nth, get(&control->writes) + 1, __ATOMIC_SEQ_CST);
            *ours = 0; /* this is the fault, and no write behind it */
            return length / 2;
        }
        /* fall through */
    default:
        errno = get(&control->error);
        return -1;
    }
}

#define NEXT(name) __typeof__(name) *next = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

#define GUARDED_WRITE(fd, length, call)                              \
    char path[PATH_MAX];                                             \
    int ours;                                                        \
    ssize_t admitted = admit_write(fd, length, path, &ours);         \
    if (admitted < 0) return -1;                                     \
    ssize_t done = call;                                             \
    if (ours && done >= 0) note_success(path, &control->writes_after); \
    return done

ssize_t write(int fd, const void *bytes, size_t length) {
    NEXT(write);
    GUARDED_WRITE(fd, length, next(fd, bytes, admitted));
}

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t offset) {
    NEXT(pwrite);
    GUARDED_WRITE(fd, length, next(fd, bytes, admitted, offset));
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t offset) {
    NEXT(pwrite64);
    GUARDED_WRITE(fd, length, next(fd, bytes, admitted, offset));
}

static size_t length_of(const struct iovec *parts, int count) {
    size_t length = 0;
    for (int i = 0; i < count; i++) length += parts[i].iov_len;
    return length;
}

/* A vector is written whole or not at all here: nobody in the data directory writes one that a half would tell from. */
ssize_t writev(int fd, const struct iovec *parts, int count) {
    NEXT(writev);
    GUARDED_WRITE(fd, length_of(parts, count), next(fd, parts, count));
}

static int guarded_sync(int fd, int (*next)(int)) {
    char path[PATH_MAX];
    int ours = is_ours(fd, path);
    if (ours && is_hit(SYNC, &control->syncs)) {
        if (get(&control->action) != STALL) {
            errno = get(&control->error);
            return -1;
        }
        stall();
    }
    int done = next(fd);
    if (ours && done == 0) note_success(path, &control->syncs_after);
    return done;
}

int fsync(int fd) {
    NEXT(fsync);
    return guarded_sync(fd, next);
}

int fdatasync(int fd) {
    NEXT(fdatasync);
    return guarded_sync(fd, next);
}
