#include "bindings/errors.hpp"

#include <pybind11/pybind11.h>

#include <exception>
#include <new>
#include <stdexcept>

#include "capture/ring_ledger.hpp"
#include "cuda/device_error.hpp"

namespace py = pybind11;

namespace routestats::bindings {
namespace {

// The class is looked up late: routestats.errors must not be imported while a module is imported.
void raise(const char* name, const char* what) {
  const py::object type = py::module_::import("routestats.errors").attr(name);
  PyErr_SetString(type.ptr(), what);
}

void translate(std::exception_ptr pointer) {
  try {
    std::rethrow_exception(pointer);
  } catch (const py::error_already_set&) {
    throw;  // an error of Python code
  } catch (const py::type_error& error) {
    raise("InvalidTypeError", error.what());
  } catch (const py::cast_error& error) {
    raise("InvalidTypeError", error.what());
  } catch (const py::value_error& error) {
    raise("InvalidValueError", error.what());
  } catch (const py::builtin_exception&) {
    throw;  // such as the end of an iteration
  } catch (const CaptureFault& error) {
    raise("CaptureError", error.what());
  } catch (const cuda::DeviceError& error) {
    raise("DeviceError", error.what());
  } catch (const std::invalid_argument& error) {
    raise("InvalidValueError", error.what());
  } catch (const std::out_of_range& error) {
    raise("InvalidValueError", error.what());
  } catch (const std::length_error& error) {
    raise("InvalidValueError", error.what());
  } catch (const std::bad_alloc&) {
    raise("OutOfMemoryError", "memory: the host has too little of it for this call");
  } catch (const std::exception& error) {
    raise("RouteStatsError", error.what());
  }
}

}  // namespace

void register_errors() { py::register_local_exception_translator(&translate); }

}  // namespace routestats::bindings
