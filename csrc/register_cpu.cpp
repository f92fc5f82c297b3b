#include <pybind11/stl.h>

#include <string>
#include <vector>

#include "coinfer/cpu.hpp"
#include "register.hpp"

namespace py = pybind11;

namespace coinfer::python {

void register_cpu(py::module_& module) {
  py::module_ cpu = module.def_submodule("cpu", "Instruction sets: listed, chosen, forced.");
  cpu.def("implementations", [] {
    std::vector<std::string> names;
    for (const Isa isa : implementations()) names.emplace_back(name(isa));
    return names;
  });
  cpu.def("implementation", [] { return std::string(name(implementation())); });
  cpu.def("force", [](const std::string& isa) { force(isa); }, py::arg("isa"));
  cpu.def("forced", [] { return std::string(forced()); });
}

}  // namespace coinfer::python
