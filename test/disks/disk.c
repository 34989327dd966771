// Owns a disk that fails, as a library that the program is started with (LD_PRELOAD): calls on files
// below DISK_ROOT are counted, and fail or wait as DISK_CONTROL says, a file that the tests write.
//
// With DISK_SHADOW it also knows what a power cut would leave: a copy of the folder that gets what was
// written when it is synced. What a sync that failed should have written is never written by a later
// one, as Linux has it. Entries of folders, sizes and removals are taken as durable at once.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { OPEN = 1, CREATE = 2, READ = 4, WRITE = 8, SYNC = 16, TRUNCATE = 32, RENAME = 64, UNLINK = 128, MKDIR = 256 };

#define MOST_CALLS 16384
#define MOST_DIRTY 65536
#define MOST_FILES 4096
#define PAGE 4096

struct call { int32_t op, failed; char path[120]; };
struct dirty { int64_t inode, start, end; };

// As test/disks/disk.ts has it.
static struct control {
  int64_t at;        // the call that fails, counted from 1; 0: none
  int64_t ops;       // which are counted
  int64_t error;     // what it fails with; 0: none
  int64_t half;      // the first that fails does half of its work instead, and succeeds
  int64_t later;     // which fail from then on
  int64_t write_us;  // how long a write takes
  int64_t sync_us;
  int64_t is_over;   // it has failed
  int64_t calls;     // counted so far
  int64_t dirty;
  int64_t lock;
  struct call call[MOST_CALLS];
  struct dirty range[MOST_DIRTY];
} *control;

static const char *root, *shadow;
static size_t root_length;
static struct file { dev_t device; ino_t inode; char *path; } files[MOST_FILES];

#define REAL(name) ((__typeof__(&name))real(#name))
static void *real(const char *name) { return dlsym(RTLD_NEXT, name); }

static int (*real_open)(const char *, int, ...);
static ssize_t (*real_pread)(int, void *, size_t, off_t);
static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
static int (*real_close)(int);
static int (*real_ftruncate)(int, off_t);

__attribute__((constructor)) static void begin(void) {
  real_open = real("open64");
  real_pread = real("pread64");
  real_pwrite = real("pwrite64");
  real_close = real("close");
  real_ftruncate = real("ftruncate64");
  root = getenv("DISK_ROOT");
  shadow = getenv("DISK_SHADOW");
  const char *path = getenv("DISK_CONTROL");
  if (root == NULL || path == NULL) return;
  root_length = strlen(root);
  int file = real_open(path, O_RDWR | O_CLOEXEC);
  if (file < 0) abort();
  struct control *found = mmap(NULL, sizeof *found, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (found == MAP_FAILED) abort();
  real_close(file);
  control = found;
}

static void lock(void) {
  while (__atomic_exchange_n(&control->lock, 1, __ATOMIC_ACQUIRE)) usleep(10);
}
static void unlock(void) { __atomic_store_n(&control->lock, 0, __ATOMIC_RELEASE); }

// What follows the root, or NULL for what is elsewhere.
static const char *below(const char *path) {
  if (control == NULL || path == NULL || strncmp(path, root, root_length) != 0) return NULL;
  return path[root_length] == '/' || path[root_length] == 0 ? path + root_length : NULL;
}

// libuv closes by a system call of its own, so a number may be another file's by now.
static const char *path_of(int fd) {
  if (control == NULL || fd < 0 || fd >= MOST_FILES || files[fd].path == NULL) return NULL;
  struct stat now;
  if (fstat(fd, &now) == 0 && now.st_ino == files[fd].inode && now.st_dev == files[fd].device)
    return files[fd].path;
  files[fd].path = NULL;
  return NULL;
}

// 0: go on; 1: do half; -1: fail, errno is set.
static int decide(int op, const char *path) {
  int64_t us = op == WRITE ? control->write_us : op == SYNC ? control->sync_us : 0;
  if (us > 0) usleep(us);
  lock();
  int outcome = 0;
  if (control->is_over && (control->later & op)) outcome = -1;
  if (control->ops & op) {
    int64_t index = ++control->calls;
    if (index == control->at) {
      control->is_over = 1;
      outcome = control->half ? 1 : -1;
    }
    if (index <= MOST_CALLS) {
      struct call *call = &control->call[index - 1];
      call->op = op;
      call->failed = outcome;
      snprintf(call->path, sizeof call->path, "%s", path);
    }
  }
  if (outcome == -1) errno = (int)control->error;
  unlock();
  return outcome;
}

static void forget(ino_t inode, int64_t from) {
  int64_t kept = 0;
  for (int64_t i = 0; i < control->dirty; i++) {
    struct dirty range = control->range[i];
    if (range.inode == (int64_t)inode && range.end > from) {
      if (range.start >= from) continue;
      range.end = from;
    }
    control->range[kept++] = range;
  }
  control->dirty = kept;
}

// The shared memory of SQLite is never synced, and means nothing after a power cut.
static int is_shadowed(const char *path) {
  size_t length = strlen(path);
  return shadow != NULL && (length < 4 || strcmp(path + length - 4, "-shm") != 0);
}

static int open_shadow(const char *path, int flags) {
  char name[PATH_MAX];
  snprintf(name, sizeof name, "%s%s", shadow, path);
  return real_open(name, flags | O_CLOEXEC, 0600);
}

static void written(int fd, const char *path, int64_t start, ssize_t length) {
  if (length <= 0 || !is_shadowed(path)) return;
  lock();
  if (control->dirty == MOST_DIRTY) abort();
  // Linux writes pages.
  control->range[control->dirty++] = (struct dirty){files[fd].inode, start / PAGE * PAGE, (start + length + PAGE - 1) / PAGE * PAGE};
  unlock();
}

static void synced(int fd, const char *path, int is_done) {
  if (!is_shadowed(path)) return;
  lock();
  int copy = is_done ? open_shadow(path, O_RDWR) : -1;
  static char buffer[65536];
  for (int64_t i = 0; copy >= 0 && i < control->dirty; i++) {
    struct dirty range = control->range[i];
    if (range.inode != (int64_t)files[fd].inode) continue;
    // The file may be open for writing only.
    char name[PATH_MAX];
    snprintf(name, sizeof name, "%s%s", root, path);
    int from = real_open(name, O_RDONLY | O_CLOEXEC);
    while (from >= 0 && range.start < range.end) {
      size_t wanted = range.end - range.start < (int64_t)sizeof buffer ? (size_t)(range.end - range.start) : sizeof buffer;
      ssize_t length = real_pread(from, buffer, wanted, range.start);
      if (length <= 0 || real_pwrite(copy, buffer, length, range.start) != length) break;
      range.start += length;
    }
    real_close(from);
  }
  if (copy >= 0) real_close(copy);
  forget(files[fd].inode, 0);
  unlock();
}

static int open_file(int (*call)(int, const char *, int, mode_t), int at, const char *path, int flags, mode_t mode) {
  const char *name = below(path);
  if (name == NULL) return call(at, path, flags, mode);
  int makes = (flags & (O_CREAT | O_TRUNC)) || (flags & O_ACCMODE) != O_RDONLY;
  if (decide(makes ? CREATE : OPEN, name) < 0) return -1;
  int fd = call(at, path, flags, mode);
  if (fd < 0 || fd >= MOST_FILES) return fd;
  struct stat now;
  fstat(fd, &now);
  files[fd] = (struct file){now.st_dev, now.st_ino, strdup(name)};
  if ((flags & O_CREAT) && is_shadowed(name)) {
    int copy = open_shadow(name, O_RDWR | O_CREAT | (flags & O_TRUNC));
    if (copy >= 0) real_close(copy);
    // Made just now: what this inode was before is gone.
    if (now.st_size == 0) {
      lock();
      forget(now.st_ino, 0);
      unlock();
    }
  }
  return fd;
}

static int plain_open(int at, const char *path, int flags, mode_t mode) {
  (void)at;
  return real_open(path, flags, mode);
}
static int plain_openat(int at, const char *path, int flags, mode_t mode) {
  return REAL(openat)(at, path, flags, mode);
}

#define MODE(last) mode_t mode = 0; if (flags & O_CREAT) { va_list list; va_start(list, last); mode = va_arg(list, mode_t); va_end(list); }

int open(const char *path, int flags, ...) { MODE(flags) return open_file(plain_open, 0, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE(flags) return open_file(plain_open, 0, path, flags, mode); }
int openat(int at, const char *path, int flags, ...) { MODE(flags) return open_file(plain_openat, at, path, flags, mode); }
int openat64(int at, const char *path, int flags, ...) { MODE(flags) return open_file(plain_openat, at, path, flags, mode); }
// As they are called where libc checks its callers.
int __open_2(const char *path, int flags) { return open_file(plain_open, 0, path, flags, 0); }
int __open64_2(const char *path, int flags) { return open_file(plain_open, 0, path, flags, 0); }
int __openat_2(int at, const char *path, int flags) { return open_file(plain_openat, at, path, flags, 0); }
int __openat64_2(int at, const char *path, int flags) { return open_file(plain_openat, at, path, flags, 0); }

// Half of what was asked for, and at least one byte.
static size_t share(int outcome, size_t length) { return outcome == 1 && length > 1 ? length / 2 : length; }

static ssize_t read_file(int fd, void *bytes, size_t length, off_t at) {
  const char *path = path_of(fd);
  int outcome = path == NULL ? 0 : decide(READ, path);
  if (outcome < 0) return -1;
  length = share(outcome, length);
  return at < 0 ? REAL(read)(fd, bytes, length) : real_pread(fd, bytes, length, at);
}

static ssize_t write_file(int fd, const void *bytes, size_t length, off_t at) {
  const char *path = path_of(fd);
  int outcome = path == NULL ? 0 : decide(WRITE, path);
  if (outcome < 0) return -1;
  length = share(outcome, length);
  if (path == NULL) return at < 0 ? REAL(write)(fd, bytes, length) : real_pwrite(fd, bytes, length, at);
  off_t start = at < 0 ? lseek(fd, 0, SEEK_CUR) : at;
  ssize_t done = at < 0 ? REAL(write)(fd, bytes, length) : real_pwrite(fd, bytes, length, at);
  written(fd, path, start, done);
  return done;
}

ssize_t read(int fd, void *bytes, size_t length) { return read_file(fd, bytes, length, -1); }
ssize_t pread64(int fd, void *bytes, size_t length, off_t at) { return read_file(fd, bytes, length, at); }
ssize_t pread(int fd, void *bytes, size_t length, off_t at) { return read_file(fd, bytes, length, at); }
ssize_t write(int fd, const void *bytes, size_t length) { return write_file(fd, bytes, length, -1); }
ssize_t pwrite64(int fd, const void *bytes, size_t length, off_t at) { return write_file(fd, bytes, length, at); }
ssize_t pwrite(int fd, const void *bytes, size_t length, off_t at) { return write_file(fd, bytes, length, at); }

// A file takes the first part of a list alone, which is a short write or read.
ssize_t writev(int fd, const struct iovec *list, int count) {
  return path_of(fd) == NULL ? REAL(writev)(fd, list, count) : write_file(fd, list->iov_base, list->iov_len, -1);
}
ssize_t readv(int fd, const struct iovec *list, int count) {
  return path_of(fd) == NULL ? REAL(readv)(fd, list, count) : read_file(fd, list->iov_base, list->iov_len, -1);
}
ssize_t pwritev(int fd, const struct iovec *list, int count, off_t at) {
  return path_of(fd) == NULL ? REAL(pwritev)(fd, list, count, at) : write_file(fd, list->iov_base, list->iov_len, at);
}
ssize_t preadv(int fd, const struct iovec *list, int count, off_t at) {
  return path_of(fd) == NULL ? REAL(preadv)(fd, list, count, at) : read_file(fd, list->iov_base, list->iov_len, at);
}

static int sync_file(int (*call)(int), int fd) {
  const char *path = path_of(fd);
  if (path == NULL) return call(fd);
  int result = decide(SYNC, path) == 0 ? call(fd) : -1;
  int error = errno;
  synced(fd, path, result == 0);
  errno = error;
  return result;
}
int fsync(int fd) { return sync_file(REAL(fsync), fd); }
int fdatasync(int fd) { return sync_file(REAL(fdatasync), fd); }

int ftruncate64(int fd, off_t size) {
  const char *path = path_of(fd);
  if (path == NULL) return real_ftruncate(fd, size);
  if (decide(TRUNCATE, path) < 0) return -1;
  int result = real_ftruncate(fd, size);
  if (result == 0 && is_shadowed(path)) {
    int copy = open_shadow(path, O_RDWR);
    struct stat was;
    if (copy >= 0 && fstat(copy, &was) == 0 && was.st_size > size) real_ftruncate(copy, size);
    if (copy >= 0) real_close(copy);
    lock();
    forget(files[fd].inode, size);
    unlock();
  }
  return result;
}
int ftruncate(int fd, off_t size) { return ftruncate64(fd, size); }

int rename(const char *from, const char *to) {
  const char *name = below(from);
  if (name != NULL && decide(RENAME, name) < 0) return -1;
  int result = REAL(rename)(from, to);
  if (result == 0 && name != NULL && shadow != NULL && below(to) != NULL) {
    char a[PATH_MAX], b[PATH_MAX];
    snprintf(a, sizeof a, "%s%s", shadow, name);
    snprintf(b, sizeof b, "%s%s", shadow, below(to));
    REAL(rename)(a, b);
  }
  return result;
}

static int removed(int result, const char *name, int is_folder) {
  if (result == 0 && name != NULL && shadow != NULL) {
    char copy[PATH_MAX];
    snprintf(copy, sizeof copy, "%s%s", shadow, name);
    if (is_folder) REAL(rmdir)(copy);
    else REAL(unlink)(copy);
  }
  return result;
}
int unlink(const char *path) {
  const char *name = below(path);
  if (name != NULL && decide(UNLINK, name) < 0) return -1;
  return removed(REAL(unlink)(path), name, 0);
}
int unlinkat(int at, const char *path, int flags) {
  const char *name = below(path);
  if (name != NULL && decide(UNLINK, name) < 0) return -1;
  return removed(REAL(unlinkat)(at, path, flags), name, flags & AT_REMOVEDIR);
}
int mkdir(const char *path, mode_t mode) {
  const char *name = below(path);
  if (name != NULL && decide(MKDIR, name) < 0) return -1;
  int result = REAL(mkdir)(path, mode);
  if (result == 0 && name != NULL && shadow != NULL) {
    char copy[PATH_MAX];
    snprintf(copy, sizeof copy, "%s%s", shadow, name);
    REAL(mkdir)(copy, mode);
  }
  return result;
}
