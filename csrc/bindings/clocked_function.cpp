#include "clocked_function.hpp"

#include <structmember.h>

#include <cstddef>
#include <memory>
#include <utility>

namespace py = pybind11;

namespace routestats::bindings {
namespace {

using Codes = std::unordered_map<const void*, std::int32_t>;

struct ClockedFunction {
  PyObject_HEAD vectorcallfunc call;
  PyObject* function;
  PyObject* clock;
  CallClock* marks;
  Codes* codes;
};

PyObject* call_clocked(PyObject* callable, PyObject* const* args, std::size_t count,
                       PyObject* keywords) {
  const auto* self = reinterpret_cast<ClockedFunction*>(callable);
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
  clear(object);
  delete reinterpret_cast<ClockedFunction*>(object)->codes;
  type->tp_free(object);
  Py_DECREF(type);
}

PyTypeObject* clocked_function_type() {
  static PyMemberDef members[] = {
      {"__vectorcalloffset__", T_PYSSIZET, offsetof(ClockedFunction, call), READONLY, nullptr},
      // Where `inspect` looks for a signature.
      {"__wrapped__", T_OBJECT_EX, offsetof(ClockedFunction, function), READONLY, nullptr},
      {nullptr, 0, 0, 0, nullptr}};
  static PyType_Slot slots[] = {{Py_tp_call, reinterpret_cast<void*>(PyVectorcall_Call)},
                                {Py_tp_descr_get, reinterpret_cast<void*>(bind_to)},
                                {Py_tp_traverse, reinterpret_cast<void*>(traverse)},
                                {Py_tp_clear, reinterpret_cast<void*>(clear)},
                                {Py_tp_dealloc, reinterpret_cast<void*>(deallocate)},
                                {Py_tp_members, members},
                                {0, nullptr}};
  static PyType_Spec spec = {"routestats._core.ClockedFunction", sizeof(ClockedFunction), 0,
                             // A method descriptor: a call by an object makes no bound method.
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
  self->call = call_clocked;
  self->function = function.release().ptr();
  self->clock = clock.release().ptr();
  self->marks = &marks;
  self->codes = kept.release();
  PyObject_GC_Track(self);
  return py::reinterpret_steal<py::object>(reinterpret_cast<PyObject*>(self));
}

}  // namespace routestats::bindings
