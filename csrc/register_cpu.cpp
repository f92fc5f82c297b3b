#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "coinfer/cpu.hpp"
#include "register.hpp"

namespace py = pybind11;

namespace coinfer::python {
namespace {

using Floats = py::array_t<float, py::array::c_style>;

std::span<const float> view(const Floats& array) { return {array.data(), static_cast<std::size_t>(array.size())}; }

}  // namespace

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
  cpu.def("read_floor", [](const Floats& data) { return read_floor(view(data)); }, py::arg("data").noconvert());
  cpu.def(
      "read_write_floor",
      [](const Floats& data, Floats& out) {
        const std::span<float> results{out.mutable_data(), static_cast<std::size_t>(out.size())};
        if (reinterpret_cast<std::uintptr_t>(results.data()) % 64 != 0) {
          throw std::invalid_argument("out must lie on a 64-byte boundary");
        }
        return read_write_floor(view(data), results);
      },
      py::arg("data").noconvert(), py::arg("out").noconvert());
}

}  // namespace coinfer::python
