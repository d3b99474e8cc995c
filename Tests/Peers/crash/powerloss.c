/* A disk that loses what was not synced, for one process: preloaded, it remembers what each write to a file below
 * POWERLOSS_DIR (a prefix of their paths) replaced until the file is synced. When the file POWERLOSS_TRIGGER appears it
 * puts all of that back, newest first, and ends the process: what a power cut leaves on a disk that had written nothing by itself.
 *
 * While the file POWERLOSS_FAULT holds the letter F writes fail as on a full disk, with R as on a read-only file system.
 *
 * The shared-memory index of SQLite (-shm) is mapped, not written; after a power cut SQLite makes it anew, so it is removed. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct undo {
    struct undo *next;
    char path[512];
    off_t offset;
    off_t length; /* of what was replaced */
    off_t size;   /* of the file before */
    char bytes[];
};

static struct undo *newest;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const char *directory;

static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
static ssize_t (*real_write)(int, const void *, size_t);
static int (*real_ftruncate)(int, off_t);
static int (*real_fsync)(int);
static int (*real_fdatasync)(int);

static int watched(int file, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, 511);
    if (length <= 0 || !directory) return 0;
    path[length] = 0;
    return strncmp(path, directory, strlen(directory)) == 0 && !strstr(path, "-shm");
}

/* Whether writes are to fail now; errno says how. */
static int fails(void) {
    const char *fault = getenv("POWERLOSS_FAULT");
    int file = fault ? open(fault, O_RDONLY) : -1;
    if (file < 0) return 0;
    char kind = 0;
    ssize_t count = read(file, &kind, 1);
    close(file);
    errno = kind == 'R' ? EROFS : ENOSPC;
    return count == 1;
}

/* Remembers what lies at offset before it is replaced. */
static void remember(int file, const char *path, off_t offset, size_t length) {
    struct stat about;
    if (fstat(file, &about) != 0) return;
    off_t kept = about.st_size > offset ? about.st_size - offset : 0;
    if (kept > (off_t)length) kept = length;
    struct undo *undo = malloc(sizeof *undo + kept);
    if (!undo) abort();
    int copy = open(path, O_RDONLY);
    undo->length = copy >= 0 && kept > 0 ? pread(copy, undo->bytes, kept, offset) : 0;
    if (copy >= 0) close(copy);
    if (undo->length < 0) undo->length = 0;
    strcpy(undo->path, path);
    undo->offset = offset;
    undo->size = about.st_size;
    undo->next = newest;
    newest = undo;
}

/* Forgets what was written to a file before `since`: it is on the disk now. */
static void forget(const char *path, const struct undo *since) {
    struct undo **place = &newest;
    while (*place && *place != since) place = &(*place)->next;
    while (*place) {
        struct undo *undo = *place;
        if (strcmp(undo->path, path) == 0) {
            *place = undo->next;
            free(undo);
        } else {
            place = &undo->next;
        }
    }
}

ssize_t pwrite64(int file, const void *bytes, size_t length, off_t offset) {
    char path[512];
    if (!watched(file, path)) return real_pwrite(file, bytes, length, offset);
    if (fails()) return -1;
    pthread_mutex_lock(&lock);
    remember(file, path, offset, length);
    ssize_t written = real_pwrite(file, bytes, length, offset);
    pthread_mutex_unlock(&lock);
    return written;
}

ssize_t pwrite(int file, const void *bytes, size_t length, off_t offset) { return pwrite64(file, bytes, length, offset); }

ssize_t write(int file, const void *bytes, size_t length) {
    char path[512];
    if (!real_write) real_write = dlsym(RTLD_NEXT, "write");
    if (!watched(file, path)) return real_write(file, bytes, length);
    pthread_mutex_lock(&lock);
    remember(file, path, lseek(file, 0, SEEK_CUR), length);
    ssize_t written = real_write(file, bytes, length);
    pthread_mutex_unlock(&lock);
    return written;
}

int ftruncate64(int file, off_t length) {
    char path[512];
    if (!watched(file, path)) return real_ftruncate(file, length);
    pthread_mutex_lock(&lock);
    remember(file, path, length, LONG_MAX);
    int outcome = real_ftruncate(file, length);
    pthread_mutex_unlock(&lock);
    return outcome;
}

int ftruncate(int file, off_t length) { return ftruncate64(file, length); }

static int synced(int file, int (*real)(int)) {
    char path[512];
    if (!watched(file, path)) return real(file);
    pthread_mutex_lock(&lock);
    const struct undo *since = newest;
    pthread_mutex_unlock(&lock);
    /* A slow disk: the power may go while it syncs, and then nothing of it counts. */
    usleep(3000);
    int outcome = real(file);
    pthread_mutex_lock(&lock);
    if (outcome == 0) forget(path, since);
    pthread_mutex_unlock(&lock);
    return outcome;
}

int fsync(int file) { return synced(file, real_fsync); }
int fdatasync(int file) { return synced(file, real_fdatasync); }

static void *wait_for_cut(void *trigger) {
    while (access(trigger, F_OK) != 0) usleep(500);
    /* The other threads may be anywhere; whoever holds the lock is in the middle of one operation, which is finished first. */
    pthread_mutex_lock(&lock);
    int lost = 0;
    for (struct undo *undo = newest; undo; undo = undo->next, lost++) {
        int file = open(undo->path, O_WRONLY);
        if (file < 0) continue;
        real_pwrite(file, undo->bytes, undo->length, undo->offset);
        real_ftruncate(file, undo->size);
        close(file);
    }
    char note[64];
    int length = snprintf(note, sizeof note, "power cut: %d writes lost\n", lost);
    real_write(2, note, length);
    _exit(99);
}

__attribute__((constructor)) static void begin(void) {
    real_pwrite = dlsym(RTLD_NEXT, "pwrite64");
    real_write = dlsym(RTLD_NEXT, "write");
    real_ftruncate = dlsym(RTLD_NEXT, "ftruncate64");
    real_fsync = dlsym(RTLD_NEXT, "fsync");
    real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
    directory = getenv("POWERLOSS_DIR");
    const char *trigger = getenv("POWERLOSS_TRIGGER");
    pthread_t thread;
    if (directory && trigger) pthread_create(&thread, NULL, wait_for_cut, (void *)trigger);
}
