#include "CResolver.h"

#include <arpa/nameser.h>
#include <netdb.h>
#include <netinet/in.h>
#include <resolv.h>
#include <string.h>

int roost_find_services(const char *name, struct roost_service *found, int most) {
    struct __res_state state;
    memset(&state, 0, sizeof state);
    if (res_ninit(&state) != 0) return -1;
    state.retrans = 2;
    state.retry = 2;
    unsigned char answer[16384];
    int length = res_nquery(&state, name, ns_c_in, ns_t_srv, answer, sizeof answer);
    int is_empty = length < 0 && (state.res_h_errno == HOST_NOT_FOUND || state.res_h_errno == NO_DATA);
    res_nclose(&state);
    if (length < 0) return is_empty ? 0 : -1;
    if (length > (int)sizeof answer) length = sizeof answer;
    ns_msg message;
    if (ns_initparse(answer, length, &message) != 0) return -1;
    int count = 0;
    for (int index = 0; index < ns_msg_count(message, ns_s_an) && count < most; index++) {
        ns_rr record;
        if (ns_parserr(&message, ns_s_an, index, &record) != 0) return -1;
        if (ns_rr_type(record) != ns_t_srv || ns_rr_rdlen(record) < 7) continue;
        const unsigned char *data = ns_rr_rdata(record);
        struct roost_service *service = &found[count];
        service->priority = ns_get16(data);
        service->weight = ns_get16(data + 2);
        service->port = ns_get16(data + 4);
        service->ttl = ns_rr_ttl(record);
        if (dn_expand(ns_msg_base(message), ns_msg_end(message), data + 6, service->target,
                      sizeof service->target) < 0)
            continue;
        count++;
    }
    return count;
}
