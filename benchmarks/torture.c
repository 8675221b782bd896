/* Loaded before the C library (LD_PRELOAD) by torture.py: counts the calls that change files below
   one folder, and at a given one kills the process in the middle, or says that the disk is full. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { NOTHING, FULL_ONCE, FULL_FROM_HERE, KILL };
enum { GO_ON, FAIL, DIE };
static char folder[4096];
static long target, seen;
static int what;

void torture_arm(const char *below, long at, int how) {
  strncpy(folder, below, sizeof folder - 1);
  target = at, what = how, seen = 0;
}

long torture_seen(void) { return seen; }

static int is_below(int at, const char *path) {
  if (!folder[0]) return 0;
  if (path && path[0] == '/') return strncmp(path, folder, strlen(folder)) == 0;
  char link[64], found[4096];
  snprintf(link, sizeof link, at == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", at);
  ssize_t length = readlink(link, found, sizeof found - 1);
  if (length < 0) return 0;
  found[length] = 0;
  return strncmp(found, folder, strlen(folder)) == 0;
}

static int next(int below, int needs_room) {
  if (!below) return GO_ON;
  long number = __atomic_add_fetch(&seen, 1, __ATOMIC_SEQ_CST);
  if (what == KILL) return number == target ? DIE : GO_ON;
  if (!needs_room || what == NOTHING) return GO_ON;
  return number == target || (what == FULL_FROM_HERE && number > target) ? FAIL : GO_ON;
}

static void die(void) {
  kill(getpid(), SIGKILL);
  for (;;) pause();
}

/* A call without data dies before or after it has done its work, by turns. */
#define CALL(type, name, parameters, arguments, below, needs_room)        \
  type name parameters {                                                  \
    static type(*real) parameters;                                        \
    if (!real) real = (type(*) parameters)dlsym(RTLD_NEXT, #name);        \
    int then = next(below, needs_room);                                   \
    if (then == FAIL) return errno = ENOSPC, -1;                          \
    if (then == DIE && target % 2) real arguments;                        \
    if (then == DIE) die();                                               \
    return real arguments;                                                \
  }

/* One that writes dies after half of its bytes; on a disk that gets full it writes half of them. */
#define WRITE(name, parameters, whole, half, size)                        \
  ssize_t name parameters {                                               \
    static ssize_t(*real) parameters;                                     \
    if (!real) real = (ssize_t(*) parameters)dlsym(RTLD_NEXT, #name);     \
    int then = next(is_below(fd, NULL), 1);                               \
    if (then == GO_ON) return real whole;                                 \
    int is_first = seen == target && what != FULL_ONCE && (size) > 1;     \
    ssize_t done = is_first ? real half : -1;                             \
    if (then == DIE) die();                                               \
    if (!is_first) errno = ENOSPC;                                        \
    return done;                                                          \
  }

WRITE(write, (int fd, const void *data, size_t size), (fd, data, size), (fd, data, size / 2), size)
WRITE(pwrite64, (int fd, const void *data, size_t size, off64_t at), (fd, data, size, at),
      (fd, data, size / 2, at), size)
WRITE(writev, (int fd, const struct iovec *parts, int count), (fd, parts, count),
      (fd, parts, count / 2), count)
CALL(int, fsync, (int fd), (fd), is_below(fd, NULL), 1)
CALL(int, fdatasync, (int fd), (fd), is_below(fd, NULL), 1)
CALL(int, ftruncate64, (int fd, off64_t size), (fd, size), is_below(fd, NULL), 1)
CALL(int, rename, (const char *from, const char *to), (from, to), is_below(AT_FDCWD, to), 1)
CALL(int, mkdir, (const char *path, mode_t mode), (path, mode), is_below(AT_FDCWD, path), 1)
CALL(int, unlink, (const char *path), (path), is_below(AT_FDCWD, path), 0)
CALL(int, unlinkat, (int at, const char *path, int flags), (at, path, flags), is_below(at, path), 0)
CALL(int, rmdir, (const char *path), (path), is_below(AT_FDCWD, path), 0)

#define OPEN(name)                                                        \
  int name(const char *path, int flags, ...) {                            \
    static int (*real)(const char *, int, ...);                           \
    if (!real) real = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, #name); \
    va_list rest;                                                         \
    va_start(rest, flags);                                                \
    mode_t mode = flags & O_CREAT ? va_arg(rest, mode_t) : 0;             \
    va_end(rest);                                                         \
    int then = flags & O_CREAT ? next(is_below(AT_FDCWD, path), 1) : GO_ON; \
    if (then == FAIL) return errno = ENOSPC, -1;                          \
    if (then == DIE && target % 2) real(path, flags, mode);               \
    if (then == DIE) die();                                               \
    return real(path, flags, mode);                                       \
  }

OPEN(open)
OPEN(open64)
