#ifndef ROOST_CRESOLVER_H
#define ROOST_CRESOLVER_H

#include <stdint.h>

/// A service record (RFC 2782).
struct roost_service {
    uint16_t priority;
    uint16_t weight;
    uint16_t port;
    uint32_t ttl;
    char target[256];
};

/// Asks the machine's resolver for the service records of a name. Blocks.
///
/// Returns how many were found, `most` at most; 0 if the name has none, -1 if nobody could tell.
int roost_find_services(const char *name, struct roost_service *found, int most);

#endif
