/* extauthz.loadtest._sender: the Python side of the engine.
 *
 * Engine(address, protocol, payloads, headers, connections, timeout, spin, capacity)
 *   run()              in a thread of its own, without the GIL, until stop()
 *   offer(due, which)  arrivals: times (int64, CLOCK_MONOTONIC ns, ascending) and payloads' numbers (uint32); how many fit
 *   collect()          the records of finished calls since the last time, as bytes (see `record` in engine.h)
 *   withdraw(), stop(), statistics()
 *
 * offer and collect are called by one thread; they never wait for the running engine.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "engine.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/un.h>
#include <unistd.h>

enum { MAX_CONNECTIONS = 65536, MAX_CAPACITY = 1 << 24 };

typedef struct {
    PyObject_HEAD
    engine engine;
    PyObject *payloads; /* tuple of bytes: owns what engine.payloads points into */
    PyObject *headers;  /* bytes */
    int ran;
} sender;

/* ---- what it is made from ---- */

static int set_address(engine *e, PyObject *address)
{
    const char *host = NULL, *path = NULL;
    int port = 0;
    if (PyUnicode_Check(address)) {
        PyObject *encoded;
        if (!PyUnicode_FSConverter(address, &encoded))
            return -1;
        struct sockaddr_un *to = (struct sockaddr_un *)&e->address;
        path = PyBytes_AsString(encoded);
        int fits = path && strlen(path) < sizeof to->sun_path;
        if (fits) {
            to->sun_family = AF_UNIX;
            memcpy(to->sun_path, path, strlen(path) + 1);
            e->address_length = sizeof *to;
        }
        Py_DECREF(encoded);
        if (!fits)
            PyErr_SetString(PyExc_ValueError, "the path of a Unix socket is too long");
        return fits ? 0 : -1;
    }
    if (!PyArg_ParseTuple(address, "si;address: a path, or a numeric host and a port", &host, &port))
        return -1;
    struct sockaddr_in *v4 = (struct sockaddr_in *)&e->address;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&e->address;
    if (port > 0 && port < 65536 && inet_pton(AF_INET, host, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons((uint16_t)port);
        e->address_length = sizeof *v4;
        return 0;
    }
    if (port > 0 && port < 65536 && inet_pton(AF_INET6, host, &v6->sin6_addr) == 1) {
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons((uint16_t)port);
        e->address_length = sizeof *v6;
        return 0;
    }
    PyErr_Format(PyExc_ValueError, "not a numeric address: %s port %d", host, port);
    return -1;
}

static int set_protocol(engine *e, const char *name)
{
    if (strcmp(name, "check") == 0)
        e->protocol = &check_protocol;
    else if (strcmp(name, "h2c") == 0)
        e->protocol = &http2_protocol;
    else if (strcmp(name, "http1") == 0)
        e->protocol = &http1_protocol;
    else {
        PyErr_Format(PyExc_ValueError, "unknown protocol %s", name);
        return -1;
    }
    return 0;
}

static int is_packed(payload p)
{
    nghttp2_nv fields[HEADER_FIELDS];
    size_t body;
    return fields_unpack(p, fields, &body) >= 0;
}

static int set_payloads(sender *s, PyObject *payloads, PyObject *headers)
{
    engine *e = &s->engine;
    char *data;
    Py_ssize_t length, count = PyTuple_Size(payloads);
    if (count <= 0 || count > UINT32_MAX) {
        PyErr_SetString(PyExc_ValueError, "at least one payload is needed");
        return -1;
    }
    if (PyBytes_AsStringAndSize(headers, &data, &length) < 0)
        return -1;
    e->headers = (payload){(const uint8_t *)data, (size_t)length};
    e->payloads = calloc((size_t)count, sizeof *e->payloads);
    if (!e->payloads) {
        PyErr_NoMemory();
        return -1;
    }
    int packed = e->protocol != &check_protocol || is_packed(e->headers);
    for (Py_ssize_t i = 0; packed && i < count; i++) {
        if (PyBytes_AsStringAndSize(PyTuple_GetItem(payloads, i), &data, &length) < 0)
            return -1;
        if (length > UINT32_MAX) {
            PyErr_SetString(PyExc_ValueError, "a payload is too long");
            return -1;
        }
        e->payloads[e->payload_count++] = (payload){(const uint8_t *)data, (size_t)length};
        packed = e->protocol != &http2_protocol || is_packed(e->payloads[i]);
    }
    if (!packed) {
        PyErr_SetString(PyExc_ValueError, "header fields are not packed as they should be, or too many");
        return -1;
    }
    s->payloads = Py_NewRef(payloads);
    s->headers = Py_NewRef(headers);
    return 0;
}

static int set_rings(engine *e, unsigned long long capacity)
{
    e->ring_size = 64;
    while (e->ring_size < capacity && e->ring_size < MAX_CAPACITY)
        e->ring_size *= 2;
    e->arrivals = calloc(e->ring_size, sizeof *e->arrivals);
    e->records = calloc(e->ring_size, sizeof *e->records);
    e->in = malloc(IN_BYTES);
    e->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (e->wake_fd < 0) {
        PyErr_SetFromErrno(PyExc_OSError);
        return -1;
    }
    if (!e->arrivals || !e->records || !e->in) {
        PyErr_NoMemory();
        return -1;
    }
    return 0;
}

static PyObject *sender_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"address", "protocol", "payloads", "headers", "connections", "timeout", "spin", "capacity",
                             NULL};
    PyObject *address, *payloads, *headers;
    const char *protocol_name;
    unsigned int connections;
    long long timeout, spin;
    unsigned long long capacity;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OsO!SILLK:Engine", names, &address, &protocol_name, &PyTuple_Type,
                                     &payloads, &headers, &connections, &timeout, &spin, &capacity))
        return NULL;
    if (connections < 1 || connections > MAX_CONNECTIONS || timeout < 1 || spin < 0) {
        PyErr_SetString(PyExc_ValueError, "connections, timeout and spin must be positive");
        return NULL;
    }
    allocfunc allocate = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    sender *s = (sender *)allocate(type, 0); /* zeroed */
    if (!s)
        return NULL;
    engine *e = &s->engine;
    e->wake_fd = e->epoll_fd = e->timer_fd = -1;
    hook *lists[] = {&e->under_way, &e->waiting, &e->pool, &e->connections, &e->leaving, &e->dirty};
    for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
        hook_reset(lists[i]);
    e->connection_count = connections;
    e->timeout = timeout;
    e->spin = spin;
    if (set_address(e, address) < 0 || set_protocol(e, protocol_name) < 0 || set_payloads(s, payloads, headers) < 0 ||
        set_rings(e, capacity) < 0) {
        Py_DECREF(s);
        return NULL;
    }
    return (PyObject *)s;
}

static void sender_dealloc(PyObject *self)
{
    sender *s = (sender *)self;
    engine *e = &s->engine;
    PyTypeObject *type = Py_TYPE(self);
    if (e->wake_fd >= 0)
        close(e->wake_fd);
    nghttp2_session_callbacks_del(e->callbacks);
    free(e->arrivals);
    free(e->records);
    free(e->payloads);
    free(e->in);
    Py_XDECREF(s->payloads);
    Py_XDECREF(s->headers);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

/* ---- methods ---- */

static PyObject *sender_run(PyObject *self, PyObject *unused)
{
    (void)unused;
    sender *s = (sender *)self;
    int error;
    if (s->ran) {
        PyErr_SetString(PyExc_RuntimeError, "an Engine runs once");
        return NULL;
    }
    s->ran = 1;
    Py_BEGIN_ALLOW_THREADS
    error = engine_run(&s->engine);
    Py_END_ALLOW_THREADS
    if (error == ENOMEM)
        return PyErr_NoMemory();
    if (error) {
        errno = error;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    Py_RETURN_NONE;
}

static PyObject *sender_offer(PyObject *self, PyObject *args)
{
    engine *e = &((sender *)self)->engine;
    Py_buffer due, which;
    if (!PyArg_ParseTuple(args, "y*y*:offer", &due, &which))
        return NULL;
    Py_ssize_t count = due.len / (Py_ssize_t)sizeof(int64_t), i = 0;
    int fits = due.len % (Py_ssize_t)sizeof(int64_t) == 0 && which.len == count * (Py_ssize_t)sizeof(uint32_t);
    uint64_t tail = e->arrivals_tail;
    uint64_t head = __atomic_load_n(&e->arrivals_head, __ATOMIC_ACQUIRE);
    for (; fits && i < count && tail - head < e->ring_size; i++, tail++) {
        arrival *a = &e->arrivals[tail & (e->ring_size - 1)];
        memcpy(&a->due, (const char *)due.buf + (size_t)i * sizeof a->due, sizeof a->due);
        memcpy(&a->payload, (const char *)which.buf + (size_t)i * sizeof a->payload, sizeof a->payload);
        fits = a->payload < e->payload_count;
    }
    PyBuffer_Release(&due);
    PyBuffer_Release(&which);
    if (!fits) {
        PyErr_SetString(PyExc_ValueError, "offer takes int64 times and as many uint32 numbers of payloads");
        return NULL;
    }
    __atomic_store_n(&e->arrivals_tail, tail, __ATOMIC_RELEASE);
    engine_wake(e);
    return PyLong_FromSsize_t(i);
}

static PyObject *sender_collect(PyObject *self, PyObject *unused)
{
    (void)unused;
    engine *e = &((sender *)self)->engine;
    uint64_t tail = __atomic_load_n(&e->records_tail, __ATOMIC_ACQUIRE), head = e->records_head;
    uint64_t at = head & (e->ring_size - 1), count = tail - head;
    uint64_t first = count < e->ring_size - at ? count : e->ring_size - at;
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(count * sizeof(record)));
    if (!bytes)
        return NULL;
    char *to = PyBytes_AsString(bytes);
    memcpy(to, e->records + at, first * sizeof(record));
    memcpy(to + first * sizeof(record), e->records, (count - first) * sizeof(record));
    __atomic_store_n(&e->records_head, tail, __ATOMIC_RELEASE);
    return bytes;
}

static PyObject *sender_withdraw(PyObject *self, PyObject *unused)
{
    (void)unused;
    engine *e = &((sender *)self)->engine;
    __atomic_store_n(&e->withdraw, 1, __ATOMIC_RELEASE);
    engine_wake(e);
    Py_RETURN_NONE;
}

static PyObject *sender_stop(PyObject *self, PyObject *unused)
{
    (void)unused;
    engine *e = &((sender *)self)->engine;
    __atomic_store_n(&e->stop, 1, __ATOMIC_RELEASE);
    engine_wake(e);
    Py_RETURN_NONE;
}

static PyObject *sender_statistics(PyObject *self, PyObject *unused)
{
    (void)unused;
    engine *e = &((sender *)self)->engine;
    return Py_BuildValue("{s:K,s:K,s:K}", "withdrawn",
                         (unsigned long long)__atomic_load_n(&e->withdrawn, __ATOMIC_ACQUIRE), "opened",
                         (unsigned long long)__atomic_load_n(&e->opened, __ATOMIC_RELAXED), "peak_in_flight",
                         (unsigned long long)__atomic_load_n(&e->peak_in_flight, __ATOMIC_RELAXED));
}

static PyMethodDef methods[] = {
    {"run", sender_run, METH_NOARGS, "Send until stop() is called; without the GIL, once, in a thread of its own."},
    {"offer", sender_offer, METH_VARARGS, "Add arrivals; returns how many of them fit."},
    {"collect", sender_collect, METH_NOARGS, "The records of the calls that finished since the last time."},
    {"withdraw", sender_withdraw, METH_NOARGS, "Forget the arrivals that are not due yet."},
    {"stop", sender_stop, METH_NOARGS, "End the run; what is under way is recorded as unfinished."},
    {"statistics", sender_statistics, METH_NOARGS, "withdrawn, opened, peak_in_flight."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot slots[] = {
    {Py_tp_new, (void *)sender_new},
    {Py_tp_dealloc, (void *)sender_dealloc},
    {Py_tp_methods, methods},
    {0, NULL},
};

static PyType_Spec spec = {
    .name = "extauthz.loadtest._sender.Engine",
    .basicsize = sizeof(sender),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = slots,
};

static int module_exec(PyObject *module)
{
    PyObject *type = PyType_FromSpec(&spec);
    if (!type)
        return -1;
    int result = PyModule_AddObjectRef(module, "Engine", type);
    Py_DECREF(type);
    return result;
}

static PyModuleDef_Slot module_slots[] = {{Py_mod_exec, (void *)module_exec}, {0, NULL}};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "_sender", .m_doc = "The sending engine of the load tester.", .m_slots = module_slots,
};

PyMODINIT_FUNC PyInit__sender(void) { return PyModuleDef_Init(&definition); }
