#include <pybind11/pybind11.h>

#include "base/build_info.hpp"
#include "base/cpu.hpp"
#include "bindings/bindings.hpp"

namespace py = pybind11;

namespace routestats::bindings {

void bind_build_info(py::module_& module) {
  module.def(
      "build_info",
      [] {
        const BuildInfo info = build_info();
        py::list isas;
        for (const Isa isa : available_isas()) isas.append(name_of(isa));
        py::dict result;
        result["version"] = info.version;
        result["compiler"] = info.compiler;
        result["isas"] = py::tuple(isas);
        result["cuda"] = info.cuda;
        result["cuda_reason"] = info.cuda_reason;
        return result;
      },
      "Version, compiler, the instruction sets with kernels that run here, whether the CUDA "
      "kernels were built and why not.");
}

}  // namespace routestats::bindings
