/* A disk that fails from its n-th change on, for whatever a process writes below one folder.
 *
 * Preloaded, it stands before the C library, so that it reaches Python and Rust alike. Calls are
 * counted while `failing_disk_arm` has been called; reading, deleting and closing never fail, as on a
 * full disk.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static char folder[PATH_MAX];
static size_t folder_length;
static atomic_long seen, fails_from = -1;
static int number = ENOSPC;

/* Count changes below `path`; fail with `error` from the `from`-th on, counted from 1; 0 is never. */
void failing_disk_arm(const char *path, long from, int error) {
    snprintf(folder, sizeof folder, "%s", path);
    folder_length = strlen(folder);
    number = error;
    atomic_store(&seen, 0);
    atomic_store(&fails_from, from);
}

/* Stop counting; the number of changes since it was armed. */
long failing_disk_disarm(void) {
    atomic_store(&fails_from, -1);
    return atomic_load(&seen);
}

static int below(const char *path) {
    char absolute[PATH_MAX * 2];
    if (path[0] != '/') {
        char here[PATH_MAX];
        if (!getcwd(here, sizeof here)) return 0;
        snprintf(absolute, sizeof absolute, "%s/%s", here, path);
        path = absolute;
    }
    return strncmp(path, folder, folder_length) == 0;
}

static int fails(void) {
    long turn = atomic_fetch_add(&seen, 1) + 1, from = atomic_load(&fails_from);
    if (from <= 0 || turn < from) return 0;
    errno = number;
    return 1;
}

static int path_fails(const char *path) {
    return atomic_load(&fails_from) >= 0 && below(path) && fails();
}

static int handle_fails(int handle) {
    char link[64], path[PATH_MAX];
    if (atomic_load(&fails_from) < 0) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", handle);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return below(path) && fails();
}

#define REAL(name) static __typeof__(&name) real; if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

ssize_t write(int handle, const void *data, size_t size) {
    REAL(write);
    return handle_fails(handle) ? -1 : real(handle, data, size);
}

ssize_t writev(int handle, const struct iovec *parts, int count) {
    REAL(writev);
    return handle_fails(handle) ? -1 : real(handle, parts, count);
}

int fsync(int handle) {
    REAL(fsync);
    return handle_fails(handle) ? -1 : real(handle);
}

int rename(const char *from, const char *to) {
    REAL(rename);
    return path_fails(to) ? -1 : real(from, to);
}

int mkdir(const char *path, mode_t mode) {
    REAL(mkdir);
    return path_fails(path) ? -1 : real(path, mode);
}

#define OPEN(name)                                                          \
    int name(const char *path, int flags, ...) {                            \
        REAL(name);                                                         \
        va_list rest;                                                       \
        va_start(rest, flags);                                              \
        mode_t mode = flags & O_CREAT ? va_arg(rest, mode_t) : 0;           \
        va_end(rest);                                                       \
        if (flags & O_CREAT && path_fails(path)) return -1;                 \
        return real(path, flags, mode);                                     \
    }
OPEN(open)
OPEN(open64)
