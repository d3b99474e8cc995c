#include "sqlite_log.h"

#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>

/// Bytes that are put together at most: as many as SQLite's files for Unix take at once (`seekAndWriteFd`).
enum { MOST = 0x1ffff };

/// An open log. The usual file stands behind it, in the same allocation.
struct log {
    sqlite3_file base;
    sqlite3_file *file;
    unsigned char *bytes;
    /// Where the bytes belong, how many there are, and for how many there is room.
    sqlite3_int64 offset;
    int count;
    int room;
};

static sqlite3_vfs *usual;

static int hand_over(struct log *log) {
    if (log->count == 0) return SQLITE_OK;
    int count = log->count;
    // Where that fails the commit does, and nobody looks at what is behind the last one.
    log->count = 0;
    return log->file->pMethods->xWrite(log->file, log->bytes, count, log->offset);
}

static int log_close(sqlite3_file *file) {
    struct log *log = (struct log *)file;
    int code = hand_over(log);
    int closed = log->file->pMethods->xClose(log->file);
    free(log->bytes);
    log->bytes = NULL;
    return code != SQLITE_OK ? code : closed;
}

static int log_read(sqlite3_file *file, void *bytes, int count, sqlite3_int64 offset) {
    struct log *log = (struct log *)file;
    int code = hand_over(log);
    return code != SQLITE_OK ? code : log->file->pMethods->xRead(log->file, bytes, count, offset);
}

static int log_write(sqlite3_file *file, const void *bytes, int count, sqlite3_int64 offset) {
    struct log *log = (struct log *)file;
    int follows = offset == log->offset + log->count && count <= MOST - log->count;
    if (!follows) {
        int code = hand_over(log);
        if (code != SQLITE_OK) return code;
        if (count > MOST) return log->file->pMethods->xWrite(log->file, bytes, count, offset);
        log->offset = offset;
    }
    if (log->count + count > log->room) {
        int room = log->room == 0 ? 1 << 16 : log->room;
        while (room < log->count + count) room *= 2;
        if (room > MOST) room = MOST;
        unsigned char *grown = realloc(log->bytes, (size_t)room);
        if (grown == NULL) return SQLITE_IOERR_NOMEM;
        log->bytes = grown;
        log->room = room;
    }
    memcpy(log->bytes + log->count, bytes, (size_t)count);
    log->count += count;
    return SQLITE_OK;
}

static int log_truncate(sqlite3_file *file, sqlite3_int64 size) {
    struct log *log = (struct log *)file;
    int code = hand_over(log);
    return code != SQLITE_OK ? code : log->file->pMethods->xTruncate(log->file, size);
}

static int log_sync(sqlite3_file *file, int flags) {
    struct log *log = (struct log *)file;
    int code = hand_over(log);
    return code != SQLITE_OK ? code : log->file->pMethods->xSync(log->file, flags);
}

static int log_size(sqlite3_file *file, sqlite3_int64 *size) {
    struct log *log = (struct log *)file;
    int code = hand_over(log);
    return code != SQLITE_OK ? code : log->file->pMethods->xFileSize(log->file, size);
}

static int log_lock(sqlite3_file *file, int level) {
    struct log *log = (struct log *)file;
    return log->file->pMethods->xLock(log->file, level);
}

static int log_unlock(sqlite3_file *file, int level) {
    struct log *log = (struct log *)file;
    return log->file->pMethods->xUnlock(log->file, level);
}

static int log_is_reserved(sqlite3_file *file, int *is_reserved) {
    struct log *log = (struct log *)file;
    return log->file->pMethods->xCheckReservedLock(log->file, is_reserved);
}

static int log_control(sqlite3_file *file, int operation, void *argument) {
    struct log *log = (struct log *)file;
    int code = hand_over(log);
    return code != SQLITE_OK ? code : log->file->pMethods->xFileControl(log->file, operation, argument);
}

static int log_sector_size(sqlite3_file *file) {
    struct log *log = (struct log *)file;
    return log->file->pMethods->xSectorSize(log->file);
}

static int log_characteristics(sqlite3_file *file) {
    struct log *log = (struct log *)file;
    return log->file->pMethods->xDeviceCharacteristics(log->file);
}

static const sqlite3_io_methods methods = {
    .iVersion = 1,
    .xClose = log_close,
    .xRead = log_read,
    .xWrite = log_write,
    .xTruncate = log_truncate,
    .xSync = log_sync,
    .xFileSize = log_size,
    .xLock = log_lock,
    .xUnlock = log_unlock,
    .xCheckReservedLock = log_is_reserved,
    .xFileControl = log_control,
    .xSectorSize = log_sector_size,
    .xDeviceCharacteristics = log_characteristics,
};

static int gathering_open(sqlite3_vfs *vfs, sqlite3_filename name, sqlite3_file *file, int flags, int *out) {
    (void)vfs;
    // All other files are what they are.
    if (!(flags & SQLITE_OPEN_WAL)) return usual->xOpen(usual, name, file, flags, out);
    struct log *log = (struct log *)file;
    memset(log, 0, sizeof *log);
    log->file = (sqlite3_file *)(log + 1);
    int code = usual->xOpen(usual, name, log->file, flags, out);
    // A file whose opening failed is closed all the same if it has methods.
    if (log->file->pMethods != NULL) log->base.pMethods = &methods;
    return code;
}

const char *roost_gathering_vfs(void) {
    static sqlite3_vfs gathering;
    sqlite3_mutex *mutex = sqlite3_mutex_alloc(SQLITE_MUTEX_STATIC_APP1);
    sqlite3_mutex_enter(mutex);
    int code = SQLITE_OK;
    if (gathering.zName == NULL) {
        usual = sqlite3_vfs_find(NULL);
        code = usual == NULL ? SQLITE_ERROR : SQLITE_OK;
        if (code == SQLITE_OK) {
            gathering = *usual;
            gathering.pNext = NULL;
            gathering.zName = "roost-gathering";
            gathering.szOsFile = usual->szOsFile + (int)sizeof(struct log);
            gathering.xOpen = gathering_open;
            code = sqlite3_vfs_register(&gathering, 0);
            if (code != SQLITE_OK) gathering.zName = NULL;
        }
    }
    sqlite3_mutex_leave(mutex);
    return code == SQLITE_OK ? gathering.zName : NULL;
}
