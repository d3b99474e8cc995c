#include "sqlite_log.h"

#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>

/// Bytes that are put together at most: as many as SQLite's files for Unix take at once (`seekAndWriteFd`), which is two pages of
/// the largest kind there is.
enum { MOST = 0x1ffff };

/// An open log. The usual file stands behind it, in the same allocation.
struct log {
    sqlite3_file base;
    sqlite3_file *file;
    /// Room for as many as there may be, from the first one on.
    unsigned char *bytes;
    /// Where they belong, and how many there are.
    sqlite3_int64 offset;
    int count;
};

static sqlite3_file *behind(sqlite3_file *file) { return ((struct log *)file)->file; }

static sqlite3_vfs *usual;

static int hand_over(sqlite3_file *file) {
    struct log *log = (struct log *)file;
    if (log->count == 0) return SQLITE_OK;
    int count = log->count;
    // Where that fails the commit does, and nobody looks at what is behind the last one.
    log->count = 0;
    return behind(file)->pMethods->xWrite(behind(file), log->bytes, count, log->offset);
}

static int log_close(sqlite3_file *file) {
    struct log *log = (struct log *)file;
    int code = hand_over(file);
    int closed = behind(file)->pMethods->xClose(behind(file));
    free(log->bytes);
    log->bytes = NULL;
    return code != SQLITE_OK ? code : closed;
}

static int log_write(sqlite3_file *file, const void *bytes, int count, sqlite3_int64 offset) {
    struct log *log = (struct log *)file;
    if (offset != log->offset + log->count || count > MOST - log->count) {
        int code = hand_over(file);
        if (code != SQLITE_OK) return code;
        if (count > MOST) return behind(file)->pMethods->xWrite(behind(file), bytes, count, offset);
        log->offset = offset;
    }
    if (log->bytes == NULL) log->bytes = malloc(MOST);
    if (log->bytes == NULL) return SQLITE_IOERR_NOMEM;
    memcpy(log->bytes + log->count, bytes, (size_t)count);
    log->count += count;
    return SQLITE_OK;
}

static int log_read(sqlite3_file *file, void *bytes, int count, sqlite3_int64 offset) {
    int code = hand_over(file);
    return code != SQLITE_OK ? code : behind(file)->pMethods->xRead(behind(file), bytes, count, offset);
}

static int log_truncate(sqlite3_file *file, sqlite3_int64 size) {
    int code = hand_over(file);
    return code != SQLITE_OK ? code : behind(file)->pMethods->xTruncate(behind(file), size);
}

static int log_sync(sqlite3_file *file, int flags) {
    int code = hand_over(file);
    return code != SQLITE_OK ? code : behind(file)->pMethods->xSync(behind(file), flags);
}

static int log_size(sqlite3_file *file, sqlite3_int64 *size) {
    int code = hand_over(file);
    return code != SQLITE_OK ? code : behind(file)->pMethods->xFileSize(behind(file), size);
}

static int log_control(sqlite3_file *file, int operation, void *argument) {
    int code = hand_over(file);
    return code != SQLITE_OK ? code : behind(file)->pMethods->xFileControl(behind(file), operation, argument);
}

static int log_lock(sqlite3_file *file, int level) { return behind(file)->pMethods->xLock(behind(file), level); }

static int log_unlock(sqlite3_file *file, int level) { return behind(file)->pMethods->xUnlock(behind(file), level); }

static int log_is_reserved(sqlite3_file *file, int *answer) {
    return behind(file)->pMethods->xCheckReservedLock(behind(file), answer);
}

static int log_sector_size(sqlite3_file *file) { return behind(file)->pMethods->xSectorSize(behind(file)); }

static int log_characteristics(sqlite3_file *file) {
    return behind(file)->pMethods->xDeviceCharacteristics(behind(file));
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
