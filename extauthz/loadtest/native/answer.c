/* CheckResponse bytes -> the outcome of a Check call, as Envoy's ext_authz filter reads them. */
#include "engine.h"

typedef struct {
    const uint8_t *at, *end; /* borrowed */
} span;

enum { VARINT = 0, FIXED64 = 1, LENGTH = 2, FIXED32 = 5 };
enum { PREFIX_BYTES = 5, FORBIDDEN = 403 };

static int varint(span *s, uint64_t *value)
{
    *value = 0;
    for (int shift = 0; shift < 64 && s->at < s->end; shift += 7) {
        uint8_t byte = *s->at++;
        *value |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80)
            return 1;
    }
    return 0;
}

/* The next field: its number, and its value (VARINT) or content (LENGTH). 1; 0 at the end; -1 when malformed. */
static int next_field(span *s, uint64_t *number, int *type, uint64_t *value, span *content)
{
    uint64_t tag;
    if (s->at == s->end)
        return 0;
    if (!varint(s, &tag))
        return -1;
    *number = tag >> 3;
    *type = (int)(tag & 7);
    size_t size;
    if (*type == VARINT)
        return varint(s, value) ? 1 : -1;
    if (*type == LENGTH) {
        if (!varint(s, value))
            return -1;
        size = *value;
    } else if (*type == FIXED64 || *type == FIXED32) {
        size = *type == FIXED64 ? 8 : 4;
    } else {
        return -1;
    }
    if (size > (size_t)(s->end - s->at))
        return -1;
    *content = (span){s->at, s->at + size};
    s->at += size;
    return 1;
}

/* Field `wanted` of a message, the last one given: a varint's value or a submessage's content. As next_field. */
static int field(span message, uint64_t wanted, int wanted_type, uint64_t *value, span *content)
{
    uint64_t number, v;
    span c;
    int type, more, found = 0;
    while ((more = next_field(&message, &number, &type, &v, &c)) > 0) {
        if (number != wanted || type != wanted_type)
            continue;
        found = 1;
        if (type == VARINT)
            *value = v;
        else
            *content = c;
    }
    return more < 0 ? -1 : found;
}

/* status.code 0 lets the request pass, whatever else the answer says; otherwise denied_response.status.code is the
 * client's HTTP status, 403 where it is missing. */
int check_outcome(const uint8_t *message, size_t length)
{
    if (length < PREFIX_BYTES || message[0] != 0)
        return OUTCOME_PROTOCOL;
    size_t said = (size_t)message[1] << 24 | (size_t)message[2] << 16 | (size_t)message[3] << 8 | message[4];
    if (said != length - PREFIX_BYTES)
        return OUTCOME_PROTOCOL;
    span response = {message + PREFIX_BYTES, message + length}, inner = {0}, status = {0};
    uint64_t code = 0, http = 0, unused;
    int found = field(response, 1, LENGTH, &unused, &inner);
    if (found > 0)
        found = field(inner, 1, VARINT, &code, &inner);
    if (found < 0)
        return OUTCOME_PROTOCOL;
    if (code == 0)
        return OUTCOME_ALLOWED;
    found = field(response, 2, LENGTH, &unused, &inner);
    if (found > 0)
        found = field(inner, 1, LENGTH, &unused, &status);
    if (found > 0)
        found = field(status, 1, VARINT, &http, &inner);
    if (found < 0)
        return OUTCOME_PROTOCOL;
    return http >= 100 && http < 600 ? (int)http : FORBIDDEN;
}
