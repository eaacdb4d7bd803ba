/* Python values -> the bytes of a google.protobuf.Struct, in one pass.
 *
 * struct(values, levels) -> bytes | None
 *
 * The same as wire.struct_in_python, which also has the grammar; a test compares the two. None says that a member nests
 * more than `levels` messages deep, which also bounds the recursion.
 *
 * A payload stands behind its size, which is known only when it is written: room is left for a size of one byte, and a
 * longer payload is moved up. No Python code runs while values are read, so what is borrowed of them stays.
 */
#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030b0000
#include <Python.h>
#include <stdint.h>
#include <string.h>

enum { STRUCT_LEVELS = 3, LIST_LEVELS = 2, MAX_LEVELS = 100 };
enum { FIRST_ROOM = 1024, LONGEST_VARINT = 10 };
enum { DONE = 1, TOO_DEEP = 0, FAILED = -1 /* with a Python error */ };

typedef struct {
    uint8_t *bytes; /* owned */
    size_t used, room;
} buffer;

/* Room for so many more bytes. */
static int reserve(buffer *b, size_t more)
{
    if (b->room - b->used >= more)
        return DONE;
    if (more > (size_t)PY_SSIZE_T_MAX / 2 - b->used) {
        PyErr_NoMemory();
        return FAILED;
    }
    size_t room = (b->used + more) * 2;
    uint8_t *bytes = PyMem_Realloc(b->bytes, room < FIRST_ROOM ? FIRST_ROOM : room);
    if (!bytes) {
        PyErr_NoMemory();
        return FAILED;
    }
    b->bytes = bytes;
    b->room = room < FIRST_ROOM ? FIRST_ROOM : room;
    return DONE;
}

static int put(buffer *b, const void *bytes, size_t size)
{
    if (reserve(b, size) != DONE)
        return FAILED;
    if (size)
        memcpy(b->bytes + b->used, bytes, size);
    b->used += size;
    return DONE;
}

static size_t varint(uint8_t digits[LONGEST_VARINT], uint64_t number)
{
    size_t count = 0;
    for (; number > 0x7f; number >>= 7)
        digits[count++] = (uint8_t)(number | 0x80);
    digits[count++] = (uint8_t)number;
    return count;
}

/* Begins a field whose size is not known yet. `start` is where its payload will begin. */
static int begin(buffer *b, uint8_t tag, size_t *start)
{
    const uint8_t head[2] = {tag, 0};
    int done = put(b, head, sizeof head);
    *start = b->used;
    return done;
}

static int end(buffer *b, size_t start)
{
    uint8_t digits[LONGEST_VARINT];
    size_t size = b->used - start, count = varint(digits, size);
    if (count > 1) {
        if (reserve(b, count - 1) != DONE)
            return FAILED;
        memmove(b->bytes + start + count - 1, b->bytes + start, size);
        b->used += count - 1;
    }
    memcpy(b->bytes + start - 1, digits, count);
    return DONE;
}

static int put_text(buffer *b, uint8_t tag, PyObject *text)
{
    Py_ssize_t size;
    const char *bytes = PyUnicode_AsUTF8AndSize(text, &size);
    if (!bytes)
        return FAILED;
    uint8_t head[1 + LONGEST_VARINT] = {tag};
    size_t count = 1 + varint(head + 1, (uint64_t)size);
    return put(b, head, count) == DONE ? put(b, bytes, (size_t)size) : FAILED;
}

static int put_double(buffer *b, PyObject *number)
{
    double value = PyFloat_AsDouble(number);
    if (value == -1.0 && PyErr_Occurred())
        return FAILED;
    uint8_t field[9] = {0x11};
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    for (int i = 0; i < 8; i++)
        field[1 + i] = (uint8_t)(bits >> (8 * i));
    return put(b, field, sizeof field);
}

static int unknown(PyObject *value)
{
    PyObject *name = PyType_GetName(Py_TYPE(value));
    if (name)
        PyErr_Format(PyExc_TypeError, "a Struct cannot hold a %U", name);
    Py_XDECREF(name);
    return FAILED;
}

static int put_value(buffer *b, PyObject *value, int levels);

static int put_members(buffer *b, PyObject *values, int levels)
{
    PyObject *name, *value;
    Py_ssize_t position = 0;
    while (PyDict_Next(values, &position, &name, &value)) {
        size_t entry, content;
        if (!PyUnicode_Check(name))
            return unknown(name);
        if (begin(b, 0x0a, &entry) != DONE || put_text(b, 0x0a, name) != DONE || begin(b, 0x12, &content) != DONE)
            return FAILED;
        int done = put_value(b, value, levels);
        if (done != DONE)
            return done;
        if (end(b, content) != DONE || end(b, entry) != DONE)
            return FAILED;
    }
    return DONE;
}

static int put_object(buffer *b, PyObject *values, int levels)
{
    size_t start;
    if (levels < STRUCT_LEVELS)
        return TOO_DEEP;
    if (begin(b, 0x2a, &start) != DONE)
        return FAILED;
    int done = put_members(b, values, levels - STRUCT_LEVELS);
    return done == DONE ? end(b, start) : done;
}

/* A list or a tuple. */
static int put_list(buffer *b, PyObject *values, int levels)
{
    size_t start, item;
    if (levels < LIST_LEVELS)
        return TOO_DEEP;
    if (begin(b, 0x32, &start) != DONE)
        return FAILED;
    int is_list = PyList_Check(values);
    Py_ssize_t count = is_list ? PyList_Size(values) : PyTuple_Size(values);
    for (Py_ssize_t i = 0; i < count; i++) {
        if (begin(b, 0x0a, &item) != DONE)
            return FAILED;
        PyObject *value = is_list ? PyList_GetItem(values, i) : PyTuple_GetItem(values, i); /* borrowed */
        int done = put_value(b, value, levels - LIST_LEVELS);
        if (done != DONE)
            return done;
        if (end(b, item) != DONE)
            return FAILED;
    }
    return end(b, start);
}

static int put_value(buffer *b, PyObject *value, int levels)
{
    if (PyUnicode_Check(value))
        return put_text(b, 0x1a, value);
    if (value == Py_None)
        return put(b, "\x08\x00", 2);
    if (PyBool_Check(value))
        return put(b, value == Py_True ? "\x20\x01" : "\x20\x00", 2);
    if (PyFloat_Check(value) || PyLong_Check(value))
        return put_double(b, value);
    if (PyList_Check(value) || PyTuple_Check(value))
        return put_list(b, value, levels);
    if (PyDict_Check(value))
        return put_object(b, value, levels);
    return unknown(value);
}

static PyObject *structure(PyObject *module, PyObject *const *arguments, Py_ssize_t count)
{
    (void)module;
    if (count != 2 || !PyDict_Check(arguments[0])) {
        PyErr_SetString(PyExc_TypeError, "struct(values: dict, levels: int)");
        return NULL;
    }
    long levels = PyLong_AsLong(arguments[1]);
    if (levels == -1 && PyErr_Occurred())
        return NULL;
    if (levels < 0 || levels > MAX_LEVELS) {
        PyErr_Format(PyExc_ValueError, "levels are 0 to %d", (int)MAX_LEVELS);
        return NULL;
    }
    buffer written = {NULL, 0, 0};
    PyObject *answer = NULL;
    int done = put_members(&written, arguments[0], (int)levels);
    if (done == DONE)
        answer = PyBytes_FromStringAndSize((const char *)written.bytes, (Py_ssize_t)written.used);
    else if (done == TOO_DEEP)
        answer = Py_NewRef(Py_None);
    PyMem_Free(written.bytes);
    return answer;
}

static PyMethodDef methods[] = {
    {"struct", (PyCFunction)(void (*)(void))structure, METH_FASTCALL,
     "struct(values, levels) -> the bytes of a Struct, or None when a member nests more messages than `levels`."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    .m_base = PyModuleDef_HEAD_INIT, .m_name = "_wire", .m_doc = "A writer of protobuf's Struct.", .m_methods = methods};

PyMODINIT_FUNC PyInit__wire(void)
{
    return PyModuleDef_Init(&definition);
}
