/* Feeds bytes to the native transport's sessions, without sockets and without Python, under the sanitizers.

   With libFuzzer (clang -fsanitize=fuzzer -DLIBFUZZER) LLVMFuzzerTestOneInput is the target. Otherwise main() mutates
   the seed files that it is given:   fuzz_session ROUNDS SEED FILE...

   The first two bytes of an input steer: how the rest is cut into reads, what happens half way, and which allocation
   fails. The rest is what a client sends. Mutations work on bytes and on whole frames. */
#include "session.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MESSAGE_LIMIT 4096
#define STEERING 2          /* bytes */
#define DRAIN_BYTE 0x40     /* in the first of them: drain half way */
#define UNREAD_BYTE 0x80    /* nothing is taken out until the end, as with a full socket */
#define NEVER_FAIL 100      /* the second one from here on: allocations succeed; most inputs should get far */
#define CONTROL_FRAMES 1000 /* in place of the burst that a connection has */
#define FRAME_HEADER 9
#define PREFACE_BYTES 24

/* ---- memory that can fail, and that is counted ---------------------------------------------------------------- */

struct block {
    struct block *next, *previous;
    size_t size, padding; /* keeps what follows aligned */
};

static struct block blocks = {&blocks, &blocks, 0, 0};
static size_t allocations_left;

static void *counted_realloc(void *memory, size_t size, void *context)
{
    (void)context;
    if (allocations_left && --allocations_left == 0)
        return NULL;
    struct block *old = memory ? (struct block *)memory - 1 : NULL;
    /* Always moved, so that what still points at the old place is seen. */
    struct block *block = malloc(sizeof *block + size);
    if (!block)
        abort();
    *block = (struct block){blocks.next, &blocks, size, 0};
    block->next->previous = block;
    blocks.next = block;
    if (old) {
        memcpy(block + 1, memory, old->size < size ? old->size : size);
        old->next->previous = old->previous;
        old->previous->next = old->next;
        free(old);
    }
    return block + 1;
}

static void *counted_malloc(size_t size, void *context)
{
    return counted_realloc(NULL, size, context);
}

static void *counted_calloc(size_t count, size_t size, void *context)
{
    void *memory = counted_realloc(NULL, count * size, context);
    return memory ? memset(memory, 0, count * size) : NULL;
}

static void counted_free(void *memory, void *context)
{
    (void)context;
    if (!memory)
        return;
    struct block *block = (struct block *)memory - 1;
    block->next->previous = block->previous;
    block->previous->next = block->next;
    free(block);
}

/* ---- one input ------------------------------------------------------------------------------------------------ */

static size_t answers; /* not given back yet */

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
    answers++;
    *answer = (struct answer){.status = length % 2 ? 13 : 0, .data = copy, .length = length, .owner = copy};
}

static void give_back(void *context, void *owner)
{
    (void)context;
    answers--;
    free(owner);
}

static int take_output(struct session *session)
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

static void feed(struct session *session, uint8_t steering, const uint8_t *data, size_t length)
{
    size_t step = (size_t)(steering & 0x3f) * 7 + 1;
    for (size_t at = 0; at < length; at += step) {
        size_t part = length - at < step ? length - at : step;
        /* A copy of just the size, so that reading past it is seen, and reading it later. */
        uint8_t *copy = malloc(part);
        if (!copy)
            abort();
        memcpy(copy, data + at, part);
        int result = session_input(session, copy, part);
        free(copy);
        if (result < 0)
            return;
        if (!(steering & UNREAD_BYTE) && (take_output(session) < 0 || session_finished(session)))
            return;
        if (steering & DRAIN_BYTE && at > length / 2 && session_drain(session))
            return;
    }
    session_expire(session, seconds_now() + 3600);
    if (take_output(session) >= 0 && !session_end(session))
        take_output(session);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t length)
{
    static const char path[] = "/envoy.service.auth.v3.Authorization/Check";
    static const struct method methods[] = {{.path = path, .path_length = sizeof path - 1}};
    nghttp2_mem memory = {NULL, counted_malloc, counted_free, counted_calloc, counted_realloc};
    struct core core = {
        .limits = {.message_bytes = MESSAGE_LIMIT, .header_bytes = 8192, .streams = 16, .connections = 1,
                   .in_flight = 4, .held_bytes = 1 << 20, .call_seconds = 1},
        .service = {.methods = methods, .method_count = 1, .call = echo, .release = give_back},
        .memory = &memory,
    };
    allocations_left = 0;
    if (length < STEERING || core_open(&core))
        return 0;
    allocations_left = data[1] < NEVER_FAIL ? (size_t)data[1] + 2 : 0;
    bool corrupt = false;
    struct session *session = session_open(&core);
    if (session) {
        session->control_credit = CONTROL_FRAMES;
        feed(session, data[0], data + STEERING, length - STEERING);
        corrupt = session->corrupt;
        session_close(session);
    }
    allocations_left = 0;
    core_close(&core);
    if (core.streams || core.held || answers)
        abort(); /* something is still counted */
    if (!corrupt && blocks.next != &blocks)
        abort(); /* something leaked */
    while (blocks.next != &blocks)
        counted_free(blocks.next + 1, NULL);
    return 0;
}

/* ---- mutations ------------------------------------------------------------------------------------------------ */

static uint64_t state = 1;

static size_t below(size_t limit)
{
    state ^= state << 13; /* xorshift64 */
    state ^= state >> 7;
    state ^= state << 17;
    return limit ? (size_t)(state % limit) : 0;
}

/* Where the frame at `at` ends, as its header says. */
static size_t frame_end(const uint8_t *data, size_t length, size_t at)
{
    if (at + FRAME_HEADER > length)
        return length;
    size_t payload = (size_t)data[at] << 16 | (size_t)data[at + 1] << 8 | data[at + 2];
    return payload > length - at - FRAME_HEADER ? length : at + FRAME_HEADER + payload;
}

/* Changes one frame, or does something with the whole of it. Gives the new length. */
static size_t mutate_frame(uint8_t *data, size_t length, size_t room)
{
    size_t first = STEERING + PREFACE_BYTES, count = 0;
    for (size_t at = first; at + FRAME_HEADER <= length; at = frame_end(data, length, at))
        count++;
    if (!count)
        return length;
    size_t at = first;
    for (size_t skip = below(count); skip; skip--)
        at = frame_end(data, length, at);
    size_t end = frame_end(data, length, at), size = end - at;
    switch (below(6)) {
    case 0: /* gone */
        memmove(data + at, data + end, length - end);
        return length - size;
    case 1: /* twice */
        if (size > room - length)
            return length;
        memmove(data + end + size, data + end, length - end);
        memcpy(data + end, data + at, size);
        return length + size;
    case 2: /* of another type */
        data[at + 3] = (uint8_t)below(11);
        return length;
    case 3: /* with another flag */
        data[at + 4] ^= (uint8_t)(1 << below(8));
        return length;
    case 4: /* on another stream */
        data[at + 8] = (uint8_t)below(12);
        return length;
    default: /* shorter, and saying so */
        if (size == FRAME_HEADER)
            return length;
        size_t cut = 1 + below(size - FRAME_HEADER);
        size_t payload = size - FRAME_HEADER - cut;
        data[at] = (uint8_t)(payload >> 16);
        data[at + 1] = (uint8_t)(payload >> 8);
        data[at + 2] = (uint8_t)payload;
        memmove(data + end - cut, data + end, length - end);
        return length - cut;
    }
}

#ifdef LIBFUZZER
size_t LLVMFuzzerMutate(uint8_t *data, size_t length, size_t room);

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t length, size_t room, unsigned int seed)
{
    state = seed * 2654435769u + 1ull;
    return below(2) && length > STEERING ? mutate_frame(data, length, room) : LLVMFuzzerMutate(data, length, room);
}
#else
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

/* Writes a mutation of one seed, perhaps followed by parts of others, to `out`. */
static size_t mutate(const struct seed *seeds, size_t count, uint8_t *out, size_t room)
{
    size_t length = STEERING;
    for (size_t pieces = 1 + below(3); pieces; pieces--) {
        const struct seed *seed = &seeds[below(count)];
        size_t from = length > STEERING && seed->length > PREFACE_BYTES && below(2) ? PREFACE_BYTES : 0;
        size_t part = seed->length - from;
        if (below(4) == 0)
            part = below(part + 1);
        if (part > room - length)
            part = room - length;
        memcpy(out + length, seed->data + from, part);
        length += part;
    }
    for (size_t changes = below(6); changes; changes--)
        length = mutate_frame(out, length, room);
    for (size_t changes = below(6); changes && length > STEERING; changes--)
        out[STEERING + below(length - STEERING)] = (uint8_t)below(256);
    out[0] = (uint8_t)below(256);
    out[1] = (uint8_t)below(256);
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
