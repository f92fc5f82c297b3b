#include <pybind11/stl.h>

#include <cmath>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "arrays.hpp"
#include "coinfer/combine/agreement.hpp"
#include "coinfer/combine/lead.hpp"
#include "coinfer/combine/posterior.hpp"
#include "register.hpp"

namespace coinfer::python {
namespace {

How how_of(const std::string& name) {
  if (name == "mean") return How::mean;
  if (name == "logpool") return How::logpool;
  if (name == "vote") return How::vote;
  throw py::value_error("no running sum is called '" + name + "'");
}

}  // namespace

void register_sequential(py::module_& module) {
  py::module_ sequential = module.def_submodule("sequential", "Combiners whose score says how safe the answer is.");

  py::class_<Lead, Combiner, std::shared_ptr<Lead>>(sequential, "Lead")
      .def(py::init([](const std::string& how, std::size_t classes) {
             return std::make_shared<Lead>(how_of(how), classes);
           }),
           py::arg("how"), py::arg("classes"));

  py::class_<Agreement, Combiner, std::shared_ptr<Agreement>>(sequential, "Agreement")
      .def(py::init<std::size_t, std::vector<std::size_t>>(), py::arg("classes"), py::arg("members"));

  py::class_<Posterior, std::shared_ptr<Posterior>>(sequential, "Posterior")
      .def(py::init([](std::size_t voters, std::size_t classes) {
             const py::gil_scoped_release release;
             return std::make_shared<Posterior>(voters, classes);
           }),
           py::arg("voters"), py::arg("classes"))
      .def_property_readonly("voters", &Posterior::voters)
      .def_property_readonly("classes", &Posterior::classes)
      .def_property_readonly("states", &Posterior::states)
      .def(
          "probability",
          [](const Posterior& self, const std::vector<double>& counts, Label label, std::size_t to_come) {
            if (counts.size() != self.classes()) throw py::value_error("counts must hold one number per class");
            if (label < 0 || static_cast<std::size_t>(label) >= counts.size()) throw py::value_error("no such label");
            for (const double count : counts) {
              if (std::isnan(count) || count < 0.0 || count > 255.0)
                throw py::value_error("counts must be whole numbers up to 255");
            }
            return self(counts, label, to_come);
          },
          py::arg("counts"), py::arg("label"), py::arg("to_come"));

  py::class_<Probable, Combiner, std::shared_ptr<Probable>>(sequential, "Probable")
      .def(py::init([](std::shared_ptr<Posterior> posterior, std::vector<std::size_t> to_come) {
             return std::make_shared<Probable>(std::move(posterior), std::move(to_come));
           }),
           py::arg("posterior"), py::arg("to_come"));
}

}  // namespace coinfer::python
