/* The Python type `Server`: options in, handlers called, the GIL (native.h).

   Everything runs with the GIL held; it is given up only while the loop waits for events, so notes left by other
   threads (drain, stop, statistics) need no lock. In the limited API of CPython 3.11: one abi3 module for all later
   versions. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "native.h"

enum { INTERNAL = 13 };

typedef struct {
    PyObject_HEAD
    struct loop *loop;        /* owned */
    struct method *methods;   /* owned; each path lies in the key that `names` holds */
    PyObject **handlers;      /* owned, and so is each of them; in the order of `methods` */
    Py_ssize_t count;
    PyObject *names;          /* owned: list of str */
    PyObject *explain;        /* owned */
    PyObject *raised[3];      /* owned: type, value and traceback of what ends serve(), or NULL */
    PyThreadState *thread;    /* while the loop waits */
    bool serving;
} Server;

/* ---- what the loop asks for ----------------------------------------------------------------------------------- */

/* Keeps the current exception for serve() to raise: KeyboardInterrupt, SystemExit and the like are not a call's. */
static void keep_raised(Server *self)
{
    if (self->raised[0])
        PyErr_Clear();
    else
        PyErr_Fetch(&self->raised[0], &self->raised[1], &self->raised[2]);
}

/* Turns the current exception into the error of a call: `explain(exception) -> (status, text)`. */
static void explain(Server *self, struct answer *answer)
{
    *answer = (struct answer){.status = INTERNAL};
    if (!PyErr_ExceptionMatches(PyExc_Exception)) {
        keep_raised(self);
        return;
    }
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback)
        PyException_SetTraceback(value, traceback);
    PyObject *explanation = PyObject_CallFunctionObjArgs(self->explain, value, NULL);
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(traceback);
    int status;
    const char *text;
    Py_ssize_t length;
    if (explanation && PyTuple_Check(explanation) && PyArg_ParseTuple(explanation, "is#", &status, &text, &length)) {
        *answer = (struct answer){
            .status = status > 0 ? status : INTERNAL,
            .data = (const uint8_t *)text,
            .length = (size_t)length,
            .owner = explanation,
        };
        return;
    }
    Py_XDECREF(explanation);
    if (!PyErr_Occurred())
        PyErr_SetString(PyExc_TypeError, "explain must return a tuple");
    if (PyErr_ExceptionMatches(PyExc_Exception))
        PyErr_WriteUnraisable(self->explain);
    else
        keep_raised(self);
}

static void call(void *context, size_t method, const uint8_t *message, size_t length, struct answer *answer)
{
    Server *self = context;
    char *data;
    Py_ssize_t size;
    PyObject *argument = PyBytes_FromStringAndSize((const char *)message, (Py_ssize_t)length);
    PyObject *result = argument ? PyObject_CallFunctionObjArgs(self->handlers[method], argument, NULL) : NULL;
    Py_XDECREF(argument);
    if (!result || PyBytes_AsStringAndSize(result, &data, &size)) {
        explain(self, answer);
        Py_XDECREF(result);
    } else if ((uint64_t)size > UINT32_MAX) {
        PyErr_SetString(PyExc_OverflowError, "a message has at most 4 GiB");
        explain(self, answer);
        Py_DECREF(result);
    } else {
        *answer = (struct answer){.data = (const uint8_t *)data, .length = (size_t)size, .owner = result};
    }
}

static void release(void *context, void *owner)
{
    (void)context;
    Py_DECREF((PyObject *)owner);
}

static void enter_wait(void *context)
{
    ((Server *)context)->thread = PyEval_SaveThread();
}

static void leave_wait(void *context)
{
    PyEval_RestoreThread(((Server *)context)->thread);
}

static bool interrupted(void *context)
{
    Server *self = context;
    if (self->raised[0]) {
        PyErr_Restore(self->raised[0], self->raised[1], self->raised[2]);
        self->raised[0] = self->raised[1] = self->raised[2] = NULL;
        return true;
    }
    return PyErr_CheckSignals() != 0;
}

/* ---- construction --------------------------------------------------------------------------------------------- */

/* Adds the handlers of one mapping to the tables. */
static int add_handlers(Server *self, PyObject *mapping, bool probes)
{
    PyObject *path, *handler;
    Py_ssize_t position = 0;
    while (PyDict_Next(mapping, &position, &path, &handler)) {
        Py_ssize_t length;
        const char *text = PyUnicode_AsUTF8AndSize(path, &length);
        if (!text || PyList_Append(self->names, path))
            return -1;
        self->methods[self->count] = (struct method){.path = text, .path_length = (size_t)length, .probe = probes};
        Py_INCREF(handler);
        self->handlers[self->count++] = handler;
    }
    return 0;
}

static int open_loop(Server *self, const struct limits *limits)
{
    const struct service service = {.context = self,
                                    .methods = self->methods,
                                    .method_count = (size_t)self->count,
                                    .call = call,
                                    .release = release};
    const struct surroundings around = {
        .context = self, .enter_wait = enter_wait, .leave_wait = leave_wait, .interrupted = interrupted};
    self->loop = loop_open(limits, &service, &around);
    if (self->loop)
        return 0;
    PyErr_SetFromErrno(PyExc_OSError);
    return -1;
}

static int fill(Server *self, PyObject *arguments, PyObject *keywords)
{
    static char *names[] = {
        "handlers",   "probes",     "explain",         "message_bytes", "header_bytes", "streams",     "connections",
        "in_flight",  "held_bytes", "preface_seconds", "idle_seconds",  "call_seconds", "age_seconds",
        "age_grace_seconds",
        NULL,
    };
    PyObject *handlers, *probes, *explainer;
    Py_ssize_t message_bytes, header_bytes, streams, connections, in_flight, held_bytes;
    struct limits limits;
    if (!PyArg_ParseTupleAndKeywords(arguments, keywords, "O!O!O$nnnnnnddddd", names, &PyDict_Type, &handlers,
                                     &PyDict_Type, &probes, &explainer, &message_bytes, &header_bytes, &streams,
                                     &connections, &in_flight, &held_bytes, &limits.preface_seconds,
                                     &limits.idle_seconds, &limits.call_seconds, &limits.age_seconds,
                                     &limits.age_grace_seconds))
        return -1;
    if (message_bytes < 0 || header_bytes < 1 || streams < 1 || connections < 1 || in_flight < 0 || held_bytes < 1 ||
        header_bytes > INT32_MAX || streams > INT32_MAX) {
        PyErr_SetString(PyExc_ValueError, "a limit is out of range");
        return -1;
    }
    limits.message_bytes = (size_t)message_bytes;
    limits.header_bytes = (size_t)header_bytes;
    limits.streams = (size_t)streams;
    limits.connections = (size_t)connections;
    limits.in_flight = (size_t)in_flight;
    limits.held_bytes = (size_t)held_bytes;
    size_t count = (size_t)(PyDict_Size(handlers) + PyDict_Size(probes));
    self->methods = PyMem_Calloc(count + 1, sizeof *self->methods);
    self->handlers = PyMem_Calloc(count + 1, sizeof *self->handlers);
    self->names = PyList_New(0);
    if (!self->methods || !self->handlers) {
        PyErr_NoMemory();
        return -1;
    }
    Py_INCREF(explainer);
    self->explain = explainer;
    if (!self->names || add_handlers(self, handlers, false) || add_handlers(self, probes, true))
        return -1;
    return open_loop(self, &limits);
}

static PyObject *server_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords)
{
    allocfunc allocate_object = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    PyObject *self = allocate_object(type, 0);
    if (self && fill((Server *)self, arguments, keywords)) {
        Py_DECREF(self);
        return NULL;
    }
    return self;
}

static int server_traverse(Server *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE((PyObject *)self));
    Py_VISIT(self->names);
    Py_VISIT(self->explain);
    for (int i = 0; i < 3; i++)
        Py_VISIT(self->raised[i]);
    for (Py_ssize_t i = 0; i < self->count; i++)
        Py_VISIT(self->handlers[i]);
    return 0;
}

/* Not called while it is serving: serve() holds a reference. */
static int server_clear(Server *self)
{
    if (self->loop)
        loop_close(self->loop);
    self->loop = NULL;
    while (self->count) {
        PyObject *handler = self->handlers[--self->count];
        self->handlers[self->count] = NULL;
        Py_XDECREF(handler);
    }
    Py_CLEAR(self->names);
    Py_CLEAR(self->explain);
    for (int i = 0; i < 3; i++)
        Py_CLEAR(self->raised[i]);
    return 0;
}

static void server_dealloc(Server *self)
{
    PyObject_GC_UnTrack(self);
    server_clear(self);
    PyMem_Free(self->methods);
    PyMem_Free(self->handlers);
    PyTypeObject *type = Py_TYPE((PyObject *)self);
    freefunc free_object = (freefunc)PyType_GetSlot(type, Py_tp_free);
    free_object(self);
    Py_DECREF(type);
}

/* ---- methods -------------------------------------------------------------------------------------------------- */

static int check_open(Server *self)
{
    if (self->loop)
        return 0;
    PyErr_SetString(PyExc_RuntimeError, "the server is closed");
    return -1;
}

PyDoc_STRVAR(listen_doc, "listen(fd)\n--\n\n"
             "Accept connections from a listening socket, which the server owns from then on.");

static PyObject *server_listen(Server *self, PyObject *argument)
{
    long fd = PyLong_AsLong(argument);
    if ((fd == -1 && PyErr_Occurred()) || check_open(self))
        return NULL;
    if (loop_listen(self->loop, (int)fd))
        return PyErr_SetFromErrno(PyExc_OSError);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(serve_doc, "serve()\n--\n\n"
             "Answer calls until drained or stopped. What a signal handler or a handler raises that is no Exception\n"
             "is raised here, and serve() may be called again.");

static PyObject *server_serve(Server *self, PyObject *unused)
{
    (void)unused;
    if (check_open(self))
        return NULL;
    if (self->serving) {
        PyErr_SetString(PyExc_RuntimeError, "the server is serving already");
        return NULL;
    }
    self->serving = true;
    int result = loop_run(self->loop);
    self->serving = false;
    if (result == LOOP_INTERRUPTED)
        return NULL;
    if (result == LOOP_FAILED)
        return PyErr_SetFromErrno(PyExc_OSError);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(drain_doc, "drain(notice_seconds, seconds)\n--\n\n"
             "End gracefully: accept for another `notice_seconds`, then close the listeners and answer what is in\n"
             "flight, for at most `seconds`. Returns at once.");

static PyObject *server_drain(Server *self, PyObject *arguments)
{
    double notice_seconds, seconds;
    if (!PyArg_ParseTuple(arguments, "dd", &notice_seconds, &seconds) || check_open(self))
        return NULL;
    loop_drain(self->loop, notice_seconds, seconds);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(stop_doc, "stop()\n--\n\n"
             "End at once, calls in flight included. Returns at once.");

static PyObject *server_stop(Server *self, PyObject *unused)
{
    (void)unused;
    if (check_open(self))
        return NULL;
    loop_stop(self->loop);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(close_doc, "close()\n--\n\n"
             "Close every socket. The server must not be serving, and is of no use afterwards.");

static PyObject *server_close(Server *self, PyObject *unused)
{
    (void)unused;
    if (self->serving) {
        PyErr_SetString(PyExc_RuntimeError, "the server is serving: stop it first");
        return NULL;
    }
    if (self->loop)
        loop_close(self->loop);
    self->loop = NULL;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(fileno_doc, "fileno()\n--\n\n"
             "A descriptor that wakes the loop when a byte is written to it (signal.set_wakeup_fd).");

static PyObject *server_fileno(Server *self, PyObject *unused)
{
    (void)unused;
    return check_open(self) ? NULL : PyLong_FromLong(loop_wake_fd(self->loop));
}

static int put(PyObject *counters, const char *name, uint64_t value)
{
    PyObject *number = PyLong_FromUnsignedLongLong(value);
    int result = number ? PyDict_SetItemString(counters, name, number) : -1;
    Py_XDECREF(number);
    return result;
}

PyDoc_STRVAR(statistics_doc, "statistics()\n--\n\n"
             "Counters by name.");

static PyObject *server_statistics(Server *self, PyObject *unused)
{
    (void)unused;
    PyObject *counters = check_open(self) ? NULL : PyDict_New();
    if (!counters)
        return NULL;
    const struct core *core = loop_core(self->loop);
    if (put(counters, "connections", loop_connections(self->loop)) || put(counters, "in_flight", core->streams) ||
        put(counters, "held_bytes", core->held)
#define PUT(name) || put(counters, #name, core->counters.name)
        COUNTERS(PUT)
#undef PUT
    ) {
        Py_DECREF(counters);
        return NULL;
    }
    return counters;
}

/* ---- the module ----------------------------------------------------------------------------------------------- */

static PyMethodDef server_methods[] = {
    {"listen", (PyCFunction)server_listen, METH_O, listen_doc},
    {"serve", (PyCFunction)server_serve, METH_NOARGS, serve_doc},
    {"drain", (PyCFunction)server_drain, METH_VARARGS, drain_doc},
    {"stop", (PyCFunction)server_stop, METH_NOARGS, stop_doc},
    {"close", (PyCFunction)server_close, METH_NOARGS, close_doc},
    {"fileno", (PyCFunction)server_fileno, METH_NOARGS, fileno_doc},
    {"statistics", (PyCFunction)server_statistics, METH_NOARGS, statistics_doc},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(server_doc, "One loop that answers unary gRPC calls. See extauthz.server.native, its only user.");

static PyType_Slot server_slots[] = {
    {Py_tp_doc, (void *)server_doc},       {Py_tp_new, server_new},         {Py_tp_dealloc, server_dealloc},
    {Py_tp_traverse, server_traverse},     {Py_tp_clear, server_clear},     {Py_tp_methods, server_methods},
    {0, NULL},
};

static PyType_Spec server_spec = {
    .name = "extauthz.server.native._native.Server",
    .basicsize = sizeof(Server),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = server_slots,
};

static int execute(PyObject *module)
{
    PyObject *type = PyType_FromModuleAndSpec(module, &server_spec, NULL);
    int result = type ? PyModule_AddType(module, (PyTypeObject *)type) : -1;
    Py_XDECREF(type);
    if (result)
        return -1;
    return PyModule_AddStringConstant(module, "nghttp2_version", http2_library_version());
}

static PyModuleDef_Slot module_slots[] = {{Py_mod_exec, execute}, {0, NULL}};

static PyModuleDef module_definition = {
    PyModuleDef_HEAD_INIT, .m_name = "_native", .m_doc = "gRPC over HTTP/2 on libnghttp2.", .m_slots = module_slots};

PyMODINIT_FUNC PyInit__native(void)
{
    return PyModuleDef_Init(&module_definition);
}
