#include <pybind11/stl.h>

#include <memory>
#include <vector>

#include "arrays.hpp"
#include "coinfer/sweep/cuts.hpp"
#include "register.hpp"

namespace coinfer::python {

void register_sweep(py::module_& module) {
  py::module_ sweep = module.def_submodule("sweep", "Operating points of a plan, all of them, in one pass.");
  sweep.def(
      "cuts",
      [](const Evidence& evidence, const std::vector<py::object>& quantities, const py::object& rows) {
        std::vector<Quantity> sums;
        for (const py::object& quantity : quantities) {
          if (py::isinstance<py::array_t<std::uint8_t>>(quantity)) {
            sums.emplace_back(view<std::uint8_t>(quantity, "quantity"));
          } else {
            sums.emplace_back(view<std::int64_t>(quantity, "quantity"));
          }
        }
        std::span<const std::uint32_t> chosen;
        if (!rows.is_none()) {
          chosen = view<std::uint32_t>(rows, "rows");
          if (chosen.empty()) throw py::value_error("no rows to sweep over");
        }
        Cuts found;
        {
          const py::gil_scoped_release release;
          found = cuts(evidence, sums, chosen);
        }
        const auto points = static_cast<py::ssize_t>(found.threshold.size());
        py::list totals;
        for (auto& quantity : found.quantities) totals.append(give(std::move(quantity)));
        return py::make_tuple(give(std::move(found.threshold)),
                              give(std::move(found.settled), {static_cast<py::ssize_t>(evidence.stages), points}),
                              totals);
      },
      py::arg("evidence"), py::arg("quantities"), py::arg("rows") = py::none());
  sweep.def("midway", &midway, py::arg("low"), py::arg("high"));
}

}  // namespace coinfer::python
