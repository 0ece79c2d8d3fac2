/*
 * Keeps a journal of what a program asks of the disk, so that a test can rebuild what a power cut would have left.
 *
 *   cc -shared -fPIC -O2 -o powercut.so powercut.c -ldl
 *   POWERCUT_DIR=/the/state POWERCUT_JOURNAL=/elsewhere/journal LD_PRELOAD=./powercut.so program
 *
 * Every call still does its work. For files below POWERCUT_DIR one record is appended for each create, write,
 * truncation, rename and unlink, and two for each sync: its begin and its successful end, because a write that another
 * thread makes in between is not covered. Replies on sockets that start with "250 2.0.0 queued" are recorded too: their
 * place among the others says what was promised when. Memory-mapped writes are not seen; SQLite makes them only to
 * its -shm file, which it builds anew after a crash.
 *
 * A record, little endian: u32 kind, u32 length of the data, u64 file (inode), u64 offset or size, then the data.
 * For a sync the offset is a number that its begin and its end have in common.
 *
 * POWERCUT_FUSE names a file that is not there yet. Once it is, and holds a number n, the process kills itself (-9) in
 * place of the n-th record from then on: behind a write, before a sync, between a sync's end and the promise.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { CREATE = 1, WRITE, TRUNCATE, RENAME, UNLINK, SYNC_BEGIN, SYNC_END, PROMISE, OPEN };

struct header {
    uint32_t kind, length;
    uint64_t file, offset;
};

static const char promise[] = "250 2.0.0 queued";
static char directory[PATH_MAX];
static size_t directory_length;
static int journal = -1;
static uint64_t next_sync;
static const char *fuse;
static long until_kill;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* The real functions, looked up by name at their first call */
#define REAL(result, name, ...) \
    static result (*real_##name)(__VA_ARGS__); \
    if (!real_##name) *(void **)&real_##name = dlsym(RTLD_NEXT, #name)

__attribute__((constructor)) static void begin(void)
{
    const char *where = getenv("POWERCUT_DIR"), *path = getenv("POWERCUT_JOURNAL");
    if (!where || !path || !realpath(where, directory)) return;
    directory_length = strlen(directory);
    fuse = getenv("POWERCUT_FUSE");
    journal = (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static void burn(void)
{
    char text[16] = "";
    long fd;
    if (!until_kill) {
        fd = syscall(SYS_openat, AT_FDCWD, fuse, O_RDONLY | O_CLOEXEC);
        if (fd < 0) return;
        if (syscall(SYS_read, fd, text, sizeof text - 1) > 0) until_kill = atol(text);
        syscall(SYS_close, fd);
    }
    if (until_kill > 0 && !--until_kill) kill(getpid(), SIGKILL);
}

/* One system call a record: what several processes append never mixes */
static void record(uint32_t kind, uint64_t file, uint64_t offset, const void *data, size_t length)
{
    struct header head = { kind, (uint32_t)length, file, offset };
    struct iovec parts[2] = { { &head, sizeof head }, { (void *)data, length } };
    if (fuse) burn();
    if (syscall(SYS_writev, journal, parts, 2) != (long)(sizeof head + length)) abort();
}

static int is_below(const char *path)
{
    return !strncmp(path, directory, directory_length) &&
           (path[directory_length] == '/' || path[directory_length] == 0);
}

/* The inode of a tracked file or directory, else 0; its path when asked for */
static uint64_t tracked(int fd, char *path)
{
    char link[64], target[PATH_MAX];
    struct stat status;
    ssize_t length;
    if (journal < 0 || fd < 0 || fstat(fd, &status) || !(S_ISREG(status.st_mode) || S_ISDIR(status.st_mode))) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    length = readlink(link, target, sizeof target - 1);
    if (length <= 0) return 0;
    target[length] = 0;
    if (!is_below(target)) return 0;
    if (path) strcpy(path, target);
    return status.st_ino;
}

static int is_promise(int fd, const void *data, size_t length)
{
    struct stat status;
    return journal >= 0 && length >= sizeof promise - 1 && !memcmp(data, promise, sizeof promise - 1) &&
           !fstat(fd, &status) && S_ISSOCK(status.st_mode);
}

static void note_promise(int fd, const void *data, size_t length)
{
    if (!is_promise(fd, data, length)) return;
    pthread_mutex_lock(&lock);
    record(PROMISE, 0, 0, data, length);
    pthread_mutex_unlock(&lock);
}

/* --- names ------------------------------------------------------------------------------------------------------- */

static int opened(int fd, int flags, int existed)
{
    char path[PATH_MAX];
    int error = errno;
    uint64_t file = fd < 0 ? 0 : tracked(fd, path);
    if (file) {
        pthread_mutex_lock(&lock);
        record(existed ? OPEN : CREATE, file, 0, path, strlen(path));
        if ((flags & O_TRUNC) && existed) record(TRUNCATE, file, 0, "", 0);
        pthread_mutex_unlock(&lock);
    }
    errno = error;
    return fd;
}

#define OPENED(call) \
    mode_t mode = 0; \
    int existed = 1; \
    if (flags & (O_CREAT | O_TMPFILE)) { \
        va_list rest; \
        va_start(rest, flags); \
        mode = va_arg(rest, mode_t); \
        va_end(rest); \
        existed = !faccessat(at, path, F_OK, 0); \
    } \
    return opened(call, flags, existed)

int open(const char *path, int flags, ...)
{
    const int at = AT_FDCWD;
    REAL(int, open, const char *, int, ...);
    OPENED(real_open(path, flags, mode));
}

int open64(const char *path, int flags, ...)
{
    const int at = AT_FDCWD;
    REAL(int, open64, const char *, int, ...);
    OPENED(real_open64(path, flags, mode));
}

int openat(int at, const char *path, int flags, ...)
{
    REAL(int, openat, int, const char *, int, ...);
    OPENED(real_openat(at, path, flags, mode));
}

int openat64(int at, const char *path, int flags, ...)
{
    REAL(int, openat64, int, const char *, int, ...);
    OPENED(real_openat64(at, path, flags, mode));
}

static void whole(int at, const char *path, char *out)
{
    char link[64], base[PATH_MAX];
    ssize_t length;
    if (path[0] == '/') {
        snprintf(out, PATH_MAX, "%s", path);
        return;
    }
    snprintf(link, sizeof link, at == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", at);
    length = readlink(link, base, sizeof base - 1);
    base[length < 0 ? 0 : length] = 0;
    if (snprintf(out, PATH_MAX, "%s/%s", base, path) >= PATH_MAX) abort();
}

static int renamed(int result, int from_at, const char *from, int to_at, const char *to)
{
    char both[2 * PATH_MAX], *second;
    if (result || journal < 0) return result;
    whole(from_at, from, both);
    second = both + strlen(both) + 1;
    whole(to_at, to, second);
    if (is_below(both) || is_below(second)) {
        pthread_mutex_lock(&lock);
        record(RENAME, 0, 0, both, (size_t)(second - both) + strlen(second));
        pthread_mutex_unlock(&lock);
    }
    return result;
}

int rename(const char *from, const char *to)
{
    REAL(int, rename, const char *, const char *);
    return renamed(real_rename(from, to), AT_FDCWD, from, AT_FDCWD, to);
}

int renameat(int from_at, const char *from, int to_at, const char *to)
{
    REAL(int, renameat, int, const char *, int, const char *);
    return renamed(real_renameat(from_at, from, to_at, to), from_at, from, to_at, to);
}

static int unlinked(int result, int at, const char *path)
{
    char full[PATH_MAX];
    if (result || journal < 0) return result;
    whole(at, path, full);
    if (is_below(full)) {
        pthread_mutex_lock(&lock);
        record(UNLINK, 0, 0, full, strlen(full));
        pthread_mutex_unlock(&lock);
    }
    return result;
}

int unlink(const char *path)
{
    REAL(int, unlink, const char *);
    return unlinked(real_unlink(path), AT_FDCWD, path);
}

int unlinkat(int at, const char *path, int flags)
{
    REAL(int, unlinkat, int, const char *, int);
    return unlinked(real_unlinkat(at, path, flags), at, path);
}

/* --- bytes ------------------------------------------------------------------------------------------------------- */

/* The record must have the place in the journal that the write has in the file: both happen under the lock */
#define WRITTEN(type, fd, at, data, call) \
    uint64_t file = tracked(fd, NULL); \
    type result; \
    int error; \
    if (!file) return call; \
    pthread_mutex_lock(&lock); \
    off_t place = (at); \
    result = call; \
    error = errno; \
    if (result > 0) record(WRITE, file, (uint64_t)place, data, (size_t)result); \
    pthread_mutex_unlock(&lock); \
    errno = error; \
    return result

static off_t position(int fd)
{
    int flags = fcntl(fd, F_GETFL);
    return lseek(fd, 0, flags & O_APPEND ? SEEK_END : SEEK_CUR);
}

ssize_t write(int fd, const void *data, size_t length)
{
    REAL(ssize_t, write, int, const void *, size_t);
    note_promise(fd, data, length);
    WRITTEN(ssize_t, fd, position(fd), data, real_write(fd, data, length));
}

ssize_t pwrite(int fd, const void *data, size_t length, off_t offset)
{
    REAL(ssize_t, pwrite, int, const void *, size_t, off_t);
    WRITTEN(ssize_t, fd, offset, data, real_pwrite(fd, data, length, offset));
}

ssize_t pwrite64(int fd, const void *data, size_t length, off64_t offset)
{
    REAL(ssize_t, pwrite64, int, const void *, size_t, off64_t);
    WRITTEN(ssize_t, fd, offset, data, real_pwrite64(fd, data, length, offset));
}

/* Nobody here writes files in several parts; if somebody begins to, the journal would lie, so it stops */
ssize_t writev(int fd, const struct iovec *parts, int count)
{
    REAL(ssize_t, writev, int, const struct iovec *, int);
    if (tracked(fd, NULL)) abort();
    if (count > 0) note_promise(fd, parts[0].iov_base, parts[0].iov_len);
    return real_writev(fd, parts, count);
}

ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset)
{
    REAL(ssize_t, pwritev, int, const struct iovec *, int, off_t);
    if (tracked(fd, NULL)) abort();
    return real_pwritev(fd, parts, count, offset);
}

static int truncated(int result, uint64_t file, off_t size)
{
    if (!result && file) record(TRUNCATE, file, (uint64_t)size, "", 0);
    return result;
}

int ftruncate(int fd, off_t size)
{
    REAL(int, ftruncate, int, off_t);
    uint64_t file = tracked(fd, NULL);
    pthread_mutex_lock(&lock);
    int result = truncated(real_ftruncate(fd, size), file, size);
    pthread_mutex_unlock(&lock);
    return result;
}

int ftruncate64(int fd, off64_t size)
{
    REAL(int, ftruncate64, int, off64_t);
    uint64_t file = tracked(fd, NULL);
    pthread_mutex_lock(&lock);
    int result = truncated(real_ftruncate64(fd, size), file, size);
    pthread_mutex_unlock(&lock);
    return result;
}

/* --- syncs ------------------------------------------------------------------------------------------------------- */

static uint64_t sync_begins(uint64_t file)
{
    pthread_mutex_lock(&lock);
    uint64_t number = (uint64_t)getpid() << 32 | ++next_sync;
    record(SYNC_BEGIN, file, number, "", 0);
    pthread_mutex_unlock(&lock);
    return number;
}

static int sync_ends(uint64_t file, uint64_t number, int result)
{
    int error = errno;
    if (!result) {
        pthread_mutex_lock(&lock);
        record(SYNC_END, file, number, "", 0);
        pthread_mutex_unlock(&lock);
    }
    errno = error;
    return result;
}

#define SYNC(name) \
    int name(int fd) \
    { \
        REAL(int, name, int); \
        uint64_t file = tracked(fd, NULL); \
        if (!file) return real_##name(fd); \
        uint64_t number = sync_begins(file); \
        return sync_ends(file, number, real_##name(fd)); \
    }

SYNC(fsync)
SYNC(fdatasync)

/* --- promises by other doors ------------------------------------------------------------------------------------- */

ssize_t send(int fd, const void *data, size_t length, int flags)
{
    REAL(ssize_t, send, int, const void *, size_t, int);
    note_promise(fd, data, length);
    return real_send(fd, data, length, flags);
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
    REAL(ssize_t, sendmsg, int, const struct msghdr *, int);
    if (message->msg_iovlen) note_promise(fd, message->msg_iov[0].iov_base, message->msg_iov[0].iov_len);
    return real_sendmsg(fd, message, flags);
}
