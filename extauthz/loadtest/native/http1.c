/* HTTP/1.1: one request at a time on a connection, its answer read without keeping it. */
#include "engine.h"

#include <string.h>
#include <strings.h>

static int opened(connection *k)
{
    k->at = STATUS_LINE;
    k->status = 0;
    k->line_length = 0;
    k->request_left = 0;
    return 0;
}

static uint32_t room(connection *k)
{
    return hook_alone(&k->calls) && k->at == STATUS_LINE ? 1 : 0;
}

static int submit(connection *k, call *c)
{
    payload whole = k->engine->payloads[c->payload];
    k->request = whole.data;
    k->request_left = whole.length;
    hook_append(&k->framed, &c->framed);
    return 0;
}

static int write_request(connection *k)
{
    if (k->request_left) {
        size_t written;
        if (connection_write(k, k->request, k->request_left, &written) < 0)
            return -1;
        k->request += written;
        k->request_left -= written;
    }
    if (!k->request_left && !hook_alone(&k->framed))
        call_written(OWNER(call, framed, k->framed.after), clock_now());
    return 0;
}

/* There is no way to call an HTTP/1.1 request back but to end its connection. */
static void cancel(connection *k, call *c)
{
    (void)c;
    connection_leave(k, 0);
}

/* ---- the answer ---- */

static int answered(connection *k)
{
    engine *e = k->engine;
    call *c = OWNER(call, place, k->calls.after);
    int early = k->request_left != 0; /* The rest of the request must not be taken for the next one. */
    k->at = STATUS_LINE;
    k->answered++;
    call_finish(e, c, k->status);
    if ((!k->keep_alive || early) && k->state == OPEN)
        connection_leave(k, 0);
    return 0;
}

static int status_line(connection *k)
{
    const char *l = k->line;
    if (k->line_length < 12 || memcmp(l, "HTTP/1.", 7) != 0 || l[8] != ' ')
        return -1;
    k->status = 0;
    for (int i = 9; i < 12; i++) {
        if (l[i] < '0' || l[i] > '9')
            return -1;
        k->status = k->status * 10 + (l[i] - '0');
    }
    k->keep_alive = l[7] != '0';
    k->chunked = 0;
    k->body_left = -1;
    k->at = HEADER_LINE;
    return k->status >= 100 ? 0 : -1;
}

/* Whether the comma-separated list in `value` has `wanted`, in any case. */
static int lists(const char *value, size_t length, const char *wanted)
{
    size_t size = strlen(wanted);
    for (size_t i = 0; i + size <= length; i++) {
        int begins = i == 0 || value[i - 1] == ',' || value[i - 1] == ' ' || value[i - 1] == '\t';
        char next = i + size < length ? value[i + size] : ',';
        if (begins && (next == ',' || next == ' ' || next == '\t') && strncasecmp(value + i, wanted, size) == 0)
            return 1;
    }
    return 0;
}

static int digits(const char *text, size_t length, int base, int64_t *value)
{
    *value = 0;
    if (length == 0 || length > 15)
        return -1;
    for (size_t i = 0; i < length; i++) {
        char d = text[i];
        int digit = d >= '0' && d <= '9' ? d - '0' : d >= 'a' && d <= 'f' ? d - 'a' + 10 : d >= 'A' && d <= 'F' ? d - 'A' + 10 : 99;
        if (digit >= base)
            return -1;
        *value = *value * base + digit;
    }
    return 0;
}

static int header_line(connection *k)
{
    const char *colon = memchr(k->line, ':', k->line_length);
    if (!colon)
        return -1;
    size_t name = (size_t)(colon - k->line);
    const char *value = colon + 1, *end = k->line + k->line_length;
    while (value < end && (*value == ' ' || *value == '\t'))
        value++;
    while (end > value && (end[-1] == ' ' || end[-1] == '\t'))
        end--;
    size_t length = (size_t)(end - value);
    if (name == 14 && strncasecmp(k->line, "content-length", name) == 0)
        return digits(value, length, 10, &k->body_left);
    if (name == 17 && strncasecmp(k->line, "transfer-encoding", name) == 0)
        k->chunked = lists(value, length, "chunked");
    else if (name == 10 && strncasecmp(k->line, "connection", name) == 0) {
        if (lists(value, length, "close"))
            k->keep_alive = 0;
        else if (lists(value, length, "keep-alive"))
            k->keep_alive = 1;
    }
    return 0;
}

/* RFC 9112 section 6.3: how long the body is. */
static int headers_end(connection *k)
{
    payload whole = k->engine->payloads[OWNER(call, place, k->calls.after)->payload];
    int head = whole.length >= 5 && memcmp(whole.data, "HEAD ", 5) == 0;
    if (k->status == 101)
        return -1;
    if (k->status < 200) {
        k->at = STATUS_LINE;
        return 0;
    }
    if (head || k->status == 204 || k->status == 304)
        return answered(k);
    if (k->chunked) {
        k->at = CHUNK_SIZE;
        return 0;
    }
    if (k->body_left == 0)
        return answered(k);
    k->at = k->body_left > 0 ? BODY : BODY_TO_END;
    return 0;
}

static int chunk_size(connection *k)
{
    const char *end = memchr(k->line, ';', k->line_length);
    size_t length = end ? (size_t)(end - k->line) : k->line_length;
    while (length && (k->line[length - 1] == ' ' || k->line[length - 1] == '\t'))
        length--;
    if (digits(k->line, length, 16, &k->body_left) < 0)
        return -1;
    k->at = k->body_left ? CHUNK : TRAILER_LINE;
    return 0;
}

static int line_done(connection *k)
{
    switch (k->at) {
    case STATUS_LINE: return hook_alone(&k->calls) ? -1 : status_line(k);
    case HEADER_LINE: return k->line_length ? header_line(k) : headers_end(k);
    case CHUNK_SIZE: return chunk_size(k);
    case CHUNK_END: k->at = CHUNK_SIZE; return k->line_length ? -1 : 0;
    default: return k->line_length ? 0 : answered(k); /* TRAILER_LINE */
    }
}

/* Bytes of a line, up to and with its end; how many were taken, or -1. */
static ssize_t line_bytes(connection *k, const uint8_t *data, size_t length)
{
    const uint8_t *end = memchr(data, '\n', length);
    size_t n = end ? (size_t)(end - data) : length;
    if (k->line_length + n > LINE_BYTES)
        return -1;
    memcpy(k->line + k->line_length, data, n);
    k->line_length += n;
    if (!end)
        return (ssize_t)n;
    if (k->line_length && k->line[k->line_length - 1] == '\r')
        k->line_length--;
    int result = line_done(k);
    k->line_length = 0;
    return result < 0 ? -1 : (ssize_t)n + 1;
}

static int received(connection *k, const uint8_t *data, size_t length)
{
    while (length && k->state == OPEN) {
        if (k->at == BODY_TO_END)
            return 0;
        if (k->at != BODY && k->at != CHUNK) {
            ssize_t n = line_bytes(k, data, length);
            if (n < 0)
                return -1;
            data += n;
            length -= (size_t)n;
            continue;
        }
        size_t part = (int64_t)length < k->body_left ? length : (size_t)k->body_left;
        data += part;
        length -= part;
        k->body_left -= (int64_t)part;
        if (k->body_left == 0 && k->at == CHUNK)
            k->at = CHUNK_END;
        else if (k->body_left == 0 && answered(k) < 0)
            return -1;
    }
    return 0;
}

static int ended(connection *k)
{
    if (k->at != BODY_TO_END || hook_alone(&k->calls))
        return -1;
    k->keep_alive = 1; /* It is gone already: nothing is to be left. */
    return answered(k);
}

const protocol http1_protocol = {opened, room, submit, received, write_request, cancel, ended};
