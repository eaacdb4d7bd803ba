/* Feeds bytes to the native transport's sessions, without sockets and without Python, under the sanitizers.

   With libFuzzer (clang -fsanitize=fuzzer) LLVMFuzzerTestOneInput is the target. Otherwise main() mutates the seed files
   that it is given:   fuzz_session ROUNDS SEED FILE...

   The first two bytes of an input steer: how the rest is cut into reads, and which allocation fails. */
#include "native.h"

#include <nghttp2/nghttp2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MESSAGE_LIMIT 4096
#define DRAIN_BYTE 0x40 /* in the first byte of an input: drain half way */

static size_t allocations_left;

static bool may_allocate(void)
{
    return allocations_left == 0 || --allocations_left > 0;
}

static void *failing_malloc(size_t size, void *context)
{
    (void)context;
    return may_allocate() ? malloc(size) : NULL;
}

static void plain_free(void *memory, void *context)
{
    (void)context;
    free(memory);
}

static void *failing_calloc(size_t count, size_t size, void *context)
{
    (void)context;
    return may_allocate() ? calloc(count, size) : NULL;
}

static void *failing_realloc(void *memory, size_t size, void *context)
{
    (void)context;
    return may_allocate() ? realloc(memory, size) : NULL;
}

/* Answers with a copy of the message, an odd one with an error of the same text. */
static void echo(void *context, size_t method, const uint8_t *message, size_t length, struct answer *answer)
{
    (void)context;
    (void)method;
    uint8_t *copy = malloc(length + 1);
    if (!copy)
        abort();
    if (length > MESSAGE_LIMIT)
        abort(); /* the limit did not hold */
    if (length)
        memcpy(copy, message, length); /* an empty message has no place */
    *answer = (struct answer){.status = length % 2 ? 13 : 0, .data = copy, .length = length, .owner = copy};
}

static void give_back(void *context, void *owner)
{
    (void)context;
    free(owner);
}

static int drain_output(struct session *session)
{
    for (;;) {
        const uint8_t *data;
        ssize_t n = session_output(session, &data);
        if (n <= 0)
            return (int)n;
        volatile uint8_t touched = data[n - 1];
        (void)touched;
    }
}

static void run(struct session *session, uint8_t steering, const uint8_t *data, size_t length)
{
    size_t step = (size_t)(steering & 0x3f) * 7 + 1;
    for (size_t at = 0; at < length; at += step) {
        size_t part = length - at < step ? length - at : step;
        /* A copy of just the size, so that reading past it is seen. */
        uint8_t *copy = malloc(part);
        if (!copy)
            abort();
        memcpy(copy, data + at, part);
        int result = session_input(session, copy, part);
        free(copy);
        if (drain_output(session) < 0 || result < 0 || session_finished(session))
            return;
        if (steering & DRAIN_BYTE && at > length / 2)
            session_drain(session);
    }
    session_expire(session, seconds_now() + 3600);
    drain_output(session);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t length)
{
    static const char path[] = "/envoy.service.auth.v3.Authorization/Check";
    static const struct method methods[] = {{.path = path, .path_length = sizeof path - 1}};
    if (length < 2)
        return 0;
    nghttp2_mem memory = {NULL, failing_malloc, plain_free, failing_calloc, failing_realloc};
    struct core core = {
        .limits = {.message_bytes = MESSAGE_LIMIT, .header_bytes = 8192, .streams = 16, .connections = 1,
                   .in_flight = 8, .held_bytes = 1 << 20, .call_seconds = 1},
        .service = {.methods = methods, .method_count = 1, .call = echo, .release = give_back},
        .memory = &memory,
    };
    allocations_left = 0;
    if (core_open(&core))
        return 0;
    /* The high values fail nothing: most inputs should get far. */
    allocations_left = data[1] < 200 ? (size_t)data[1] + 1 : 0;
    struct session *session = session_open(&core);
    if (session) {
        run(session, data[0], data + 2, length - 2);
        session_close(session);
    }
    allocations_left = 0;
    if (core.streams || core.held)
        abort(); /* something is still counted */
    core_close(&core);
    return 0;
}

#ifndef LIBFUZZER
static uint64_t state;

static uint64_t next(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

struct seed {
    uint8_t *data;
    size_t length;
};

static int load(const char *name, struct seed *seed)
{
    FILE *file = fopen(name, "rb");
    if (!file)
        return -1;
    fseek(file, 0, SEEK_END);
    seed->length = (size_t)ftell(file);
    rewind(file);
    seed->data = malloc(seed->length + 1);
    int result = seed->data && fread(seed->data, 1, seed->length, file) == seed->length ? 0 : -1;
    fclose(file);
    return result;
}

/* Writes a mutation of one seed, perhaps followed by a part of another, to `out`. */
static size_t mutate(const struct seed *seeds, size_t count, uint8_t *out, size_t room)
{
    size_t length = 0;
    out[length++] = (uint8_t)next();
    out[length++] = (uint8_t)next();
    for (size_t pieces = 1 + next() % 3; pieces && length < room; pieces--) {
        const struct seed *seed = &seeds[next() % count];
        size_t from = next() % 4 ? 0 : next() % (seed->length + 1);
        size_t part = seed->length - from;
        if (next() % 4 == 0)
            part = next() % (part + 1);
        if (part > room - length)
            part = room - length;
        memcpy(out + length, seed->data + from, part);
        length += part;
    }
    for (size_t changes = next() % 8; changes && length > 2; changes--)
        out[2 + next() % (length - 2)] = (uint8_t)next();
    return length;
}

int main(int argc, char **argv)
{
    static uint8_t input[1 << 18];
    if (argc < 4) {
        fprintf(stderr, "usage: %s ROUNDS SEED FILE...\n", argv[0]);
        return 2;
    }
    size_t count = (size_t)argc - 3;
    struct seed *seeds = calloc(count, sizeof *seeds);
    if (!seeds)
        return 2;
    state = strtoull(argv[2], NULL, 10) * 2654435769u + 1;
    for (size_t i = 0; i < count; i++) {
        if (load(argv[3 + i], &seeds[i])) {
            perror(argv[3 + i]);
            return 2;
        }
    }
    unsigned long rounds = strtoul(argv[1], NULL, 10);
    for (unsigned long round = 0; round < rounds; round++)
        LLVMFuzzerTestOneInput(input, mutate(seeds, count, input, sizeof input));
    printf("%lu inputs\n", rounds);
    for (size_t i = 0; i < count; i++)
        free(seeds[i].data);
    free(seeds);
    return 0;
}
#endif
