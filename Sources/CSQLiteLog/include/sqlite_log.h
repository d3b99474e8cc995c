#ifndef ROOST_SQLITE_LOG_H
#define ROOST_SQLITE_LOG_H

/// The name of a virtual file system for SQLite that is the usual one, except that what is written to a write-ahead log is put
/// together and handed to the system in one call, and not two calls for each page of a commit. It is handed over before the log is
/// synced, read, measured or cut.
///
/// It is for connections with `synchronous` FULL or EXTRA alone: those sync the log before anybody else is told of what is in it.
///
/// Returns NULL if it can't be registered.
const char *roost_gathering_vfs(void);

#endif
