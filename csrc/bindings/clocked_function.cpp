#include "bindings/clocked_function.hpp"

#include <structmember.h>

#include <cstddef>
#include <memory>
#include <utility>

namespace py = pybind11;

namespace routestats::bindings {
namespace {

using Codes = std::unordered_map<const void*, std::int32_t>;

struct ClockedFunction {
  PyObject base;
  PyObject* weak_references;
  vectorcallfunc call;
  PyObject* function;
  PyObject* clock;
  CallClock* marks;
  Codes* codes;
};

PyObject* call_clocked(PyObject* callable, PyObject* const* args, std::size_t count,
                       PyObject* keywords) {
  const auto* self = reinterpret_cast<ClockedFunction*>(callable);
  if (self->function == nullptr) {
    PyErr_SetString(PyExc_RuntimeError, "called while it is being collected");
    return nullptr;
  }
  const auto found =
      PyVectorcall_NARGS(count) > 0 ? self->codes->find(args[0]) : self->codes->end();
  if (found == self->codes->end()) {
    return PyObject_Vectorcall(self->function, args, count, keywords);
  }
  const std::int32_t code = found->second;
  self->marks->begin_call(code);
  PyObject* result = PyObject_Vectorcall(self->function, args, count, keywords);
  self->marks->end_call(code);
  return result;
}

// Attributes that it does not have, such as the name, are those of the function.
PyObject* attribute_of(PyObject* object, PyObject* name) {
  PyObject* found = PyObject_GenericGetAttr(object, name);
  PyObject* function = reinterpret_cast<ClockedFunction*>(object)->function;
  if (found != nullptr || function == nullptr ||
      PyErr_ExceptionMatches(PyExc_AttributeError) == 0) {
    return found;
  }
  PyErr_Clear();
  return PyObject_GetAttr(function, name);
}

// The docstring of the function. Without this the type would give its own, which is empty.
PyObject* text_of(PyObject* object, void*) {
  PyObject* function = reinterpret_cast<ClockedFunction*>(object)->function;
  return function == nullptr ? Py_NewRef(Py_None) : PyObject_GetAttrString(function, "__doc__");
}

PyObject* bind_to(PyObject* callable, PyObject* object, PyObject*) {
  if (object == nullptr || object == Py_None) return Py_NewRef(callable);
  return PyMethod_New(callable, object);
}

int traverse(PyObject* object, visitproc visit, void* arg) {
  const auto* self = reinterpret_cast<ClockedFunction*>(object);
  Py_VISIT(Py_TYPE(object));
  Py_VISIT(self->function);
  Py_VISIT(self->clock);
  return 0;
}

int clear(PyObject* object) {
  auto* self = reinterpret_cast<ClockedFunction*>(object);
  Py_CLEAR(self->function);
  Py_CLEAR(self->clock);
  return 0;
}

void deallocate(PyObject* object) {
  PyTypeObject* type = Py_TYPE(object);
  PyObject_GC_UnTrack(object);
  if (reinterpret_cast<ClockedFunction*>(object)->weak_references != nullptr) {
    PyObject_ClearWeakRefs(object);
  }
  clear(object);
  delete reinterpret_cast<ClockedFunction*>(object)->codes;
  type->tp_free(object);
  Py_DECREF(type);
}

PyTypeObject* clocked_function_type() {
  static PyMemberDef members[] = {
      {"__vectorcalloffset__", T_PYSSIZET, offsetof(ClockedFunction, call), READONLY, nullptr},
      {"__weaklistoffset__", T_PYSSIZET, offsetof(ClockedFunction, weak_references), READONLY,
       nullptr},
      // `inspect` looks here for a signature.
      {"__wrapped__", T_OBJECT_EX, offsetof(ClockedFunction, function), READONLY, nullptr},
      {nullptr, 0, 0, 0, nullptr}};
  static PyGetSetDef computed[] = {{"__doc__", text_of, nullptr, nullptr, nullptr},
                                   {nullptr, nullptr, nullptr, nullptr, nullptr}};
  static PyType_Slot slots[] = {{Py_tp_call, reinterpret_cast<void*>(PyVectorcall_Call)},
                                {Py_tp_getattro, reinterpret_cast<void*>(attribute_of)},
                                {Py_tp_descr_get, reinterpret_cast<void*>(bind_to)},
                                {Py_tp_traverse, reinterpret_cast<void*>(traverse)},
                                {Py_tp_clear, reinterpret_cast<void*>(clear)},
                                {Py_tp_dealloc, reinterpret_cast<void*>(deallocate)},
                                {Py_tp_members, members},
                                {Py_tp_getset, computed},
                                {0, nullptr}};
  static PyType_Spec spec = {"routestats._core.ClockedFunction", sizeof(ClockedFunction), 0,
                             // With this flag a call by an object makes no bound method.
                             Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL |
                                 Py_TPFLAGS_METHOD_DESCRIPTOR | Py_TPFLAGS_DISALLOW_INSTANTIATION,
                             slots};
  static auto* const type = reinterpret_cast<PyTypeObject*>(PyType_FromSpec(&spec));
  if (type == nullptr) throw py::error_already_set();
  return type;
}

}  // namespace

py::object clocked_function(CallClock& marks, py::object clock, py::object function, Codes codes) {
  auto kept = std::make_unique<Codes>(std::move(codes));
  auto* self = PyObject_GC_New(ClockedFunction, clocked_function_type());
  if (self == nullptr) throw py::error_already_set();
  self->weak_references = nullptr;
  self->call = call_clocked;
  self->function = function.release().ptr();
  self->clock = clock.release().ptr();
  self->marks = &marks;
  self->codes = kept.release();
  PyObject_GC_Track(self);
  return py::reinterpret_steal<py::object>(reinterpret_cast<PyObject*>(self));
}

}  // namespace routestats::bindings
