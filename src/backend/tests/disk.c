/* A disk that fails, for the tests: preloaded into a process, it counts what
 * the process does to its database files and, at the step that it is told of,
 * ends the process or returns an error.
 *
 *   DISK_STEP    the step (from 1) at which it happens; 0: only count
 *   DISK_FAULT   kill     the process is killed instead of the step
 *                      power    as kill, and of what was not synced some is lost
 *                               and some torn, by DISK_STEP as the seed
 *                      enospc   this step and a few more find the disk full
 *                      eio      this step fails
 *                      past     from this step on, the clock is a year behind
 *                      future   from this step on, it is some minutes ahead
 *   DISK_COUNT   the file that gets the number of steps at the end
 *
 * Nothing is really synced, which no test could tell: a killed process leaves
 * what it wrote to the kernel, and what a loss of power leaves is made here. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum fault { COUNT, KILL, POWER, ENOSPC_, EIO_, PAST, FUTURE };
enum { FULL_STEPS = 3, PAST_SECONDS = 366 * 86400, FUTURE_SECONDS = 200 };

/* A change that is not on the disk yet. */
struct change {
  struct change *older;
  char *path;
  off_t at, size_before, size_after;
  size_t len, old_len;
  char *old, *new;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static enum fault fault;
static long step, at_step;
static struct change *newest;

static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
static int (*real_ftruncate)(int, off_t);
static int (*real_unlink)(const char *);
static int (*real_rename)(const char *, const char *);
static int (*real_clock_gettime)(clockid_t, struct timespec *);
static int (*real_gettimeofday)(struct timeval *, void *);

__attribute__((constructor)) static void begin(void) {
  real_write = dlsym(RTLD_NEXT, "write");
  real_pwrite = dlsym(RTLD_NEXT, "pwrite");
  real_ftruncate = dlsym(RTLD_NEXT, "ftruncate");
  real_unlink = dlsym(RTLD_NEXT, "unlink");
  real_rename = dlsym(RTLD_NEXT, "rename");
  real_gettimeofday = dlsym(RTLD_NEXT, "gettimeofday");
  real_clock_gettime = dlsym(RTLD_NEXT, "clock_gettime");
  const char *name = getenv("DISK_FAULT");
  const char *number = getenv("DISK_STEP");
  at_step = number ? atol(number) : 0;
  if (!name || !at_step) fault = COUNT;
  else if (!strcmp(name, "kill")) fault = KILL;
  else if (!strcmp(name, "power")) fault = POWER;
  else if (!strcmp(name, "enospc")) fault = ENOSPC_;
  else if (!strcmp(name, "eio")) fault = EIO_;
  else if (!strcmp(name, "past")) fault = PAST;
  else if (!strcmp(name, "future")) fault = FUTURE;
}

__attribute__((destructor)) static void end(void) {
  const char *path = getenv("DISK_COUNT");
  FILE *file = path ? fopen(path, "w") : NULL;
  if (file) {
    fprintf(file, "%ld", step);
    fclose(file);
  }
}

static int is_watched(const char *path) {
  const char *name = strrchr(path, '/');
  return strstr(name ? name : path, ".db") != NULL;
}

static char *watched(int fd) {
  char link[64], path[4096];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t len = readlink(link, path, sizeof path - 1);
  if (len <= 0 || path[0] != '/') return NULL;
  path[len] = 0;
  return is_watched(path) ? strdup(path) : NULL;
}

/* SQLite takes the log's index for lost whenever nobody has it open. */
static int is_index(const char *path) {
  size_t len = strlen(path);
  return len > 4 && !strcmp(path + len - 4, "-shm");
}

static uint64_t chance(uint64_t seed) {
  seed += 0x9e3779b97f4a7c15u;
  seed = (seed ^ (seed >> 30)) * 0xbf58476d1ce4e5b9u;
  seed = (seed ^ (seed >> 27)) * 0x94d049bb133111ebu;
  return seed ^ (seed >> 31);
}

/* Undoes every change that is not on the disk, then does some of them again. */
static void lose_power(void) {
  struct change *oldest = NULL;
  for (struct change *change = newest; change;) {
    struct change *older = change->older;
    int fd = open(change->path, O_RDWR);
    if (fd >= 0) {
      if (change->old_len) real_pwrite(fd, change->old, change->old_len, change->at);
      real_ftruncate(fd, change->size_before);
      close(fd);
    }
    change->older = oldest;
    oldest = change;
    change = older;
  }
  uint64_t seed = (uint64_t)at_step << 20;
  for (struct change *change = oldest; change; change = change->older) {
    uint64_t fate = chance(seed++) % 4;
    int fd = fate ? open(change->path, O_RDWR) : -1;
    if (fd < 0) continue;
    if (!change->new) real_ftruncate(fd, change->size_after);
    else real_pwrite(fd, change->new, fate == 1 ? change->len / 2 : change->len, change->at);
    close(fd);
  }
}

/* Counts a step; the error that it meets, if it is to. */
static int next_step(int takes_space) {
  __atomic_add_fetch(&step, 1, __ATOMIC_SEQ_CST);
  if (fault == COUNT || fault == PAST || fault == FUTURE || step < at_step) return 0;
  if (fault == KILL || fault == POWER) {
    if (fault == POWER) lose_power();
    raise(SIGKILL);
  }
  if (fault == EIO_) return step == at_step ? EIO : 0;
  return takes_space && step < at_step + FULL_STEPS ? ENOSPC : 0;
}

/* Remembers what a write or a truncation changes. */
static void remember(int fd, const char *path, const void *data, size_t len, off_t at) {
  struct stat stat;
  if (fault != POWER || is_index(path) || fstat(fd, &stat)) return;
  struct change *change = calloc(1, sizeof *change);
  change->path = strdup(path);
  change->at = at;
  change->size_before = stat.st_size;
  change->len = len;
  size_t old_len = data ? len : (size_t)(at < stat.st_size ? stat.st_size - at : 0);
  change->old = malloc(old_len + 1);
  ssize_t got = pread(fd, change->old, old_len, at);
  change->old_len = got > 0 ? got : 0;
  change->size_after = data ? 0 : at;
  if (data) memcpy(change->new = malloc(len + 1), data, len);
  change->older = newest;
  newest = change;
}

/* What was done to the file is on the disk. */
static void forget(const char *path) {
  for (struct change **link = &newest; *link;) {
    struct change *change = *link;
    if (strcmp(change->path, path)) {
      link = &change->older;
      continue;
    }
    *link = change->older;
    free(change->path), free(change->old), free(change->new), free(change);
  }
}

static ssize_t put(int fd, const void *data, size_t len, off_t at, int seeks) {
  char *path = watched(fd);
  if (!path) return seeks ? real_write(fd, data, len) : real_pwrite(fd, data, len, at);
  pthread_mutex_lock(&lock);
  int error = next_step(1);
  ssize_t done = -1;
  if (!error) {
    remember(fd, path, data, len, seeks ? lseek(fd, 0, SEEK_CUR) : at);
    done = seeks ? real_write(fd, data, len) : real_pwrite(fd, data, len, at);
  }
  pthread_mutex_unlock(&lock);
  free(path);
  if (error) errno = error;
  return done;
}

ssize_t write(int fd, const void *data, size_t len) { return put(fd, data, len, 0, 1); }
ssize_t pwrite(int fd, const void *data, size_t len, off_t at) { return put(fd, data, len, at, 0); }
ssize_t pwrite64(int fd, const void *data, size_t len, off_t at) { return put(fd, data, len, at, 0); }

int ftruncate(int fd, off_t size) {
  char *path = watched(fd);
  if (!path) return real_ftruncate(fd, size);
  pthread_mutex_lock(&lock);
  int error = next_step(0), done = -1;
  if (!error) {
    remember(fd, path, NULL, 0, size);
    done = real_ftruncate(fd, size);
  }
  pthread_mutex_unlock(&lock);
  free(path);
  if (error) errno = error;
  return done;
}
int ftruncate64(int fd, off_t size) { return ftruncate(fd, size); }

int fsync(int fd) {
  char *path = watched(fd);
  if (!path) return 0;
  pthread_mutex_lock(&lock);
  int error = next_step(0);
  if (!error) forget(path);
  pthread_mutex_unlock(&lock);
  free(path);
  if (error) errno = error;
  return error ? -1 : 0;
}
int fdatasync(int fd) { return fsync(fd); }

int unlink(const char *path) {
  if (!is_watched(path)) return real_unlink(path);
  pthread_mutex_lock(&lock);
  int error = next_step(0), done = -1;
  if (!error) {
    forget(path);
    done = real_unlink(path);
  }
  pthread_mutex_unlock(&lock);
  if (error) errno = error;
  return done;
}

int rename(const char *from, const char *to) {
  if (!is_watched(from)) return real_rename(from, to);
  pthread_mutex_lock(&lock);
  int error = next_step(0), done = error ? -1 : real_rename(from, to);
  pthread_mutex_unlock(&lock);
  if (error) errno = error;
  return done;
}

/* How far off the clock is, in seconds. */
static long jumped(void) {
  if (fault != PAST && fault != FUTURE) return 0;
  if (__atomic_load_n(&step, __ATOMIC_SEQ_CST) < at_step) return 0;
  return fault == PAST ? -PAST_SECONDS : FUTURE_SECONDS;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
  if (!real_clock_gettime) real_clock_gettime = dlsym(RTLD_NEXT, "clock_gettime");
  int error = real_clock_gettime(clock, now);
  if (!error && clock == CLOCK_REALTIME) now->tv_sec += jumped();
  return error;
}

int gettimeofday(struct timeval *now, void *zone) {
  if (!real_gettimeofday) real_gettimeofday = dlsym(RTLD_NEXT, "gettimeofday");
  int error = real_gettimeofday(now, zone);
  if (!error) now->tv_sec += jumped();
  return error;
}
